#include "infer/generator.h"

#include <chrono>

#include "core/copy.h"

namespace hadal::infer {
namespace {

Tensor token_tensor(std::span<const std::int32_t> ids) {
  Tensor tokens = Tensor::empty({static_cast<std::int64_t>(ids.size())}, DType::kI32);
  std::copy(ids.begin(), ids.end(), tokens.as<std::int32_t>());
  return tokens;
}

/// One sequence in progress: tokens, caches, and the pending draft.
class Sequence {
 public:
  Sequence(model::Model& model, const GenerateOptions& options, std::int64_t capacity)
      : model_(model),
        options_(options),
        stream_(stream_of(model.options().device)),
        sampler_(options.sampling),
        caches_(model.make_caches(capacity)) {
    if (options.speculate) mtp_cache_ = model.make_mtp_cache(capacity);
  }

  /// Runs the prompt and chooses the first token.
  std::int32_t start(std::span<const std::int32_t> prompt) {
    const Tensor hidden = model_.decode(stream_, token_tensor(prompt), caches_);
    const auto n = static_cast<std::int64_t>(prompt.size());
    position_ = static_cast<std::uint64_t>(n);
    const std::int32_t token = choose(hidden.view().rows(n - 1, n), 0);
    if (mtp_cache_) {
      std::vector<std::int32_t> next(prompt.begin() + 1, prompt.end());
      next.push_back(token);
      make_draft(next, hidden);
    }
    last_ = token;
    return token;
  }

  /// The next one or two tokens.
  std::vector<std::int32_t> advance() {
    if (!mtp_cache_) {
      const Tensor hidden = model_.decode(stream_, token_tensor({&last_, 1}), caches_);
      ++position_;
      last_ = choose(hidden, 0);
      return {last_};
    }
    return advance_with_draft();
  }

  double cache_bytes_per_token() const {
    double bytes = 0;
    for (const auto& cache : caches_) bytes += cache->bytes_per_token();
    return bytes;
  }

  std::int64_t drafts() const { return drafts_; }
  std::int64_t accepted() const { return accepted_; }

 private:
  std::vector<double> distribution(ConstView hidden_row) {
    const Tensor logits = to_host(stream_, model_.head(stream_, hidden_row));
    return probabilities(logits, options_.sampling);
  }

  std::int32_t choose(ConstView hidden_row, std::uint64_t draw) { return sampler_.sample(distribution(hidden_row), position_, draw); }

  /// MTP over `next` (t_{i+1} for each hidden row); keeps the distribution of the last row and draws the draft from it.
  void make_draft(std::span<const std::int32_t> next, ConstView hidden) {
    const auto n = static_cast<std::int64_t>(next.size());
    const Tensor out = model_.decode_mtp(stream_, token_tensor(next), hidden, *mtp_cache_);
    draft_p_ = distribution(out.view().rows(n - 1, n));
    draft_ = sampler_.sample(draft_p_, position_ + 1, 1);
  }

  std::vector<std::int32_t> advance_with_draft() {
    const std::int32_t pair[] = {last_, draft_};
    const Tensor hidden = model_.decode(stream_, token_tensor(pair), caches_);
    ++position_;
    ++drafts_;
    const std::vector<double> p = distribution(hidden.view().rows(0, 1));
    const auto d = static_cast<std::size_t>(draft_);
    const bool keep = sampler_.uniform(position_, 2) * draft_p_[d] < p[d];
    if (!keep) {
      for (auto& cache : caches_) cache->truncate(cache->length() - 1);
      last_ = sampler_.sample(residual(p), position_, 3);
      make_draft({&last_, 1}, hidden.view().rows(0, 1));
      return {last_};
    }
    ++accepted_;
    ++position_;
    const std::int32_t kept = draft_;
    last_ = choose(hidden.view().rows(1, 2), 0);
    const std::int32_t next[] = {kept, last_};
    make_draft(next, hidden);
    return {kept, last_};
  }

  /// max(p - q, 0), normalised: what a rejected draft is replaced from.
  std::vector<double> residual(const std::vector<double>& p) const {
    std::vector<double> r(p.size());
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) sum += r[i] = std::max(p[i] - draft_p_[i], 0.0);
    if (sum <= 0) return p;  // p == q up to rounding: a rejection had probability zero
    for (double& x : r) x /= sum;
    return r;
  }

  model::Model& model_;
  const GenerateOptions& options_;
  Stream stream_;
  TokenSampler sampler_;
  std::vector<std::unique_ptr<nn::AttentionCache>> caches_;
  std::unique_ptr<nn::AttentionCache> mtp_cache_;
  std::uint64_t position_ = 0;  ///< of the token being chosen
  std::int32_t last_ = 0;       ///< chosen, not yet in the caches
  std::int32_t draft_ = 0;      ///< guess for the token after last_
  std::vector<double> draft_p_;
  std::int64_t drafts_ = 0, accepted_ = 0;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

GenerateResult Generator::generate(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                                   const std::function<bool(std::int32_t)>& on_token) {
  const std::int64_t limit = model_.options().shape.max_positions;
  // The last token is never run; a draft stands at most where it would.
  const std::int64_t capacity = static_cast<std::int64_t>(prompt.size()) + options.max_tokens;
  if (prompt.empty()) throw UserError("the prompt has no token; give --prompt TEXT");
  const std::int64_t vocab = model_.options().shape.vocab_size;
  for (const std::int32_t id : prompt) {
    if (id < 0 || id >= vocab) throw UserError("the prompt holds token {}, the model has ids 0 .. {}: is this the model's own tokenizer?", id, vocab - 1);
  }
  if (capacity > limit) {
    throw UserError("prompt of {} tokens and --max-tokens {} exceed the model's {} positions", prompt.size(), options.max_tokens, limit);
  }
  if (options.speculate && model_.options().shape.mtp.depth == 0) throw UserError("--speculate needs a model with MTP (model.mtp.depth is 0)");
  GenerateResult result;
  if (options.max_tokens <= 0) return result;
  Sequence sequence(model_, options, capacity);
  auto clock = std::chrono::steady_clock::now();
  std::vector<std::int32_t> fresh{sequence.start(prompt)};
  result.prefill_seconds = seconds_since(clock);
  clock = std::chrono::steady_clock::now();
  bool go_on = true;
  while (go_on) {
    for (const std::int32_t token : fresh) {
      if (!go_on) break;
      result.tokens.push_back(token);
      go_on = on_token(token) && static_cast<std::int64_t>(result.tokens.size()) < options.max_tokens;
    }
    if (go_on) fresh = sequence.advance();
  }
  result.seconds = seconds_since(clock);
  result.cache_bytes_per_token = sequence.cache_bytes_per_token();
  result.drafts = sequence.drafts();
  result.accepted = sequence.accepted();
  return result;
}

}  // namespace hadal::infer
