#include "data/sampler.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace hadal::data {
namespace {

std::vector<double> weights_of(const std::vector<WeightedSource>& sources) {
  std::vector<double> weights;
  for (const WeightedSource& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace

Sampler::Sampler(std::vector<WeightedSource> sources, const SamplerOptions& options)
    : sources_(std::move(sources)), options_(options), blend_(weights_of(sources_)) {
  HADAL_CHECK(options_.sequence_length >= 1, "sequence length {}", options_.sequence_length);
  const FillInMiddle& fim = options_.fim;
  if (fim.rate > 0.0 && (fim.begin_id < 0 || fim.hole_id < 0 || fim.end_id < 0)) {
    throw UserError(
        "data.fim_rate is {}, but the tokenizer lacks a fill-in-the-middle token "
        "(train it with --special '<|fim_begin|>' '<|fim_hole|>' '<|fim_end|>', or set data.fim_rate=0)",
        fim.rate);
  }
  const TokenSource* known = nullptr;
  for (const WeightedSource& weighted : sources_) {
    const TokenSource& source = *weighted.source;
    if (source.num_tokens() == 0) throw UserError("{}: holds no tokens", source.name());
    if (!source.tokenizer_hash().empty()) {
      if (known != nullptr && known->tokenizer_hash() != source.tokenizer_hash()) {
        throw UserError("{} and {} were written with different tokenizers: build them again with the same one", known->name(),
                        source.name());
      }
      known = &source;
    }
    const std::uint64_t length = EpochStream::length(source, fim);
    const auto row = static_cast<std::uint64_t>(options_.sequence_length);
    samples_per_epoch_.push_back(length / row + (length % row != 0));
  }
}

Sampler::Address Sampler::locate(std::uint64_t index) const {
  const Blend::Pick pick = blend_.pick(index);
  const std::uint64_t per_epoch = samples_per_epoch_[pick.source];
  Address address{pick.source, pick.sample / per_epoch, pick.sample % per_epoch};
  if (options_.shuffle) {
    const Random keys(options_.seed, RandomPurpose::kMicroShuffle, std::uint64_t{address.source} << 48 ^ address.epoch);
    address.sample = Permutation(per_epoch, keys)(address.sample);
  }
  return address;
}

std::shared_ptr<const EpochStream> Sampler::stream(std::size_t source, std::uint64_t epoch) const {
  const std::scoped_lock lock(mutex_);
  const auto found = std::ranges::find_if(cache_, [&](const CachedStream& c) { return c.source == source && c.epoch == epoch; });
  if (found != cache_.end()) return found->stream;
  auto made =
      std::make_shared<const EpochStream>(sources_[source].source, options_.fim, options_.shuffle, options_.seed, source, epoch);
  cache_.push_front({source, epoch, made});
  int of_source = 0;
  std::erase_if(cache_, [&](const CachedStream& c) { return c.source == source && ++of_source > 2; });
  return made;
}

Batch Sampler::batch(std::uint64_t first_index, std::int64_t count) const {
  const std::int64_t row = options_.sequence_length;
  const auto width = static_cast<std::size_t>(row);
  const Shape shape{count, row};
  Batch batch{Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kU8),
              Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kI32)};
  std::vector<std::int32_t> tokens(width + 1);
  std::vector<std::uint8_t> mask(width + 1);
  std::vector<std::int32_t> documents(width + 1);
  for (std::int64_t i = 0; i < count; ++i) {
    const Address address = locate(first_index + static_cast<std::uint64_t>(i));
    const auto epoch = stream(address.source, address.epoch);
    const std::uint64_t begin = address.sample * width;
    epoch->read(begin, tokens, mask, documents);
    if (options_.mask_filled_up && begin + width + 1 > epoch->length()) {
      std::fill(mask.begin() + static_cast<std::ptrdiff_t>(epoch->length() - begin), mask.end(), std::uint8_t{0});
    }
    const std::size_t at = static_cast<std::size_t>(i) * width;
    std::memcpy(batch.tokens.as<std::int32_t>() + at, tokens.data(), width * sizeof(std::int32_t));
    std::memcpy(batch.targets.as<std::int32_t>() + at, tokens.data() + 1, width * sizeof(std::int32_t));
    std::memcpy(batch.loss_mask.as<std::uint8_t>() + at, mask.data() + 1, width);
    std::memcpy(batch.document_ids.as<std::int32_t>() + at, documents.data(), width * sizeof(std::int32_t));
    std::int32_t* positions = batch.positions.as<std::int32_t>() + at;
    for (std::size_t s = 0; s < width; ++s) positions[s] = static_cast<std::int32_t>(s);
  }
  return batch;
}

std::uint64_t Sampler::vocab_size() const {
  std::uint64_t size = 0;
  for (const WeightedSource& weighted : sources_) size = std::max(size, weighted.source->vocab_size());
  return size;
}

Hash128 Sampler::fingerprint() const {
  Hasher hasher;
  const auto add = [&](std::uint64_t value) { hasher.update(std::as_bytes(std::span(&value, 1))); };
  add(1);  // version of the order
  add(options_.seed);
  add(static_cast<std::uint64_t>(options_.sequence_length));
  add(options_.shuffle);
  add(options_.mask_filled_up);
  add(std::bit_cast<std::uint64_t>(options_.fim.rate));
  if (options_.fim.rate > 0.0) {
    for (const std::int32_t id : {options_.fim.begin_id, options_.fim.hole_id, options_.fim.end_id})
      add(static_cast<std::uint64_t>(id));
  }
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const Hash128 source = sources_[i].source->fingerprint();
    add(source.low);
    add(source.high);
    add(blend_.count(i));
  }
  return hasher.digest();
}

void Sampler::check_fingerprint(const std::string& saved_hex) const {
  if (fingerprint().hex() == saved_hex) return;
  throw UserError(
      "the data of this run is not what its checkpoint was trained on: token files, weights, run.seed, "
      "data.sequence_length, data.fim_rate or data.validation_fraction changed (sample order {} then, {} now). "
      "Put them back, or start a new run with run.init_from",
      saved_hex, fingerprint().hex());
}

RowRange rows_of_rank(std::int64_t global_rows, int dp_rank, int dp_size) {
  HADAL_CHECK(dp_size >= 1 && dp_rank >= 0 && dp_rank < dp_size, "dp_rank {} of {}", dp_rank, dp_size);
  const std::int64_t share = global_rows / dp_size;
  const std::int64_t larger = global_rows % dp_size;
  const std::int64_t begin = dp_rank * share + std::min<std::int64_t>(dp_rank, larger);
  return {begin, begin + share + (dp_rank < larger ? 1 : 0)};
}

}  // namespace hadal::data
