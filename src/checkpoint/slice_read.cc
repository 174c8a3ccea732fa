#include "checkpoint/slice_read.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <vector>

#include "checkpoint/open_files.h"
#include "checkpoint/overlap.h"
#include "checkpoint/verify.h"
#include "core/convert.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/parallel_for.h"

namespace hadal::checkpoint {
namespace {

/// What a read takes from one piece.
struct Source {
  const SliceRead* read;
  const Piece* piece;
  Overlap overlap;

  std::uint64_t element() const { return size_of(read->tensor->dtype); }
  ElementRange wanted() const { return {read->first, read->first + read->into.numel()}; }
  /// Elements of the piece that begin inside a block.
  ElementRange in_block(std::uint64_t begin, std::uint64_t end) const {
    const auto at = [&](std::uint64_t byte) {
      return static_cast<std::int64_t>((std::max(byte, piece->offset) - piece->offset) / element());
    };
    return {at(begin), at(end)};
  }
  template <class Body>
  void for_each_run(std::uint64_t block_begin, std::uint64_t block_end, const Body& body) const {
    overlap.for_each(in_block(block_begin, block_end), wanted(), body);
  }
  std::byte* target(const Overlap::Run& run) const {
    return static_cast<std::byte*>(read->into.data) + static_cast<std::size_t>(run.to - read->first) * size_of(read->into.dtype);
  }
  std::uint64_t file_byte(const Overlap::Run& run) const {
    return piece->offset + static_cast<std::uint64_t>(run.from) * element();
  }
};

/// A block that a source needs.
struct Need {
  std::int64_t file;
  std::size_t block;
  const Source* source;
};

std::vector<Source> sources_of(std::span<const SliceRead> reads) {
  std::vector<Source> sources;
  for (const SliceRead& read : reads) {
    for (const Piece& piece : read.tensor->pieces) {
      if (!overlap(piece.slice, read.slice)) continue;
      sources.push_back({&read, &piece, Overlap(piece.slice, read.slice)});
    }
  }
  return sources;
}

/// Sorted by file and block.
std::vector<Need> needs_of(const std::vector<Source>& sources) {
  std::vector<Need> needs;
  for (const Source& source : sources) {
    const ElementRange range = source.overlap.from_range(source.wanted());
    if (range.begin == range.end) continue;
    const std::uint64_t first = source.piece->offset + static_cast<std::uint64_t>(range.begin) * source.element();
    const std::uint64_t last = source.piece->offset + static_cast<std::uint64_t>(range.end) * source.element() - 1;
    for (std::uint64_t block = first / kBlockBytes; block <= last / kBlockBytes; ++block) {
      // Rows may be longer than a block: between two runs there are blocks that nobody needs.
      if (source.overlap.any(source.in_block(block * kBlockBytes, (block + 1) * kBlockBytes), source.wanted())) {
        needs.push_back({source.piece->file, static_cast<std::size_t>(block), &source});
      }
    }
  }
  std::ranges::stable_sort(needs, {}, [](const Need& need) { return std::tuple(need.file, need.block); });
  return needs;
}

void copy_run(const Source& source, const Overlap::Run& run, const std::byte* from) {
  const View& into = source.read->into;
  const DType stored = source.read->tensor->dtype;
  if (stored == into.dtype) {
    std::memcpy(source.target(run), from, static_cast<std::size_t>(run.count) * source.element());
  } else {
    convert_floats({from, stored, Shape{run.count}, kCpu}, {source.target(run), into.dtype, Shape{run.count}, kCpu});
  }
}

/// Where a whole block goes in one piece, and needs no staging; nullptr otherwise.
std::byte* direct_target(std::span<const Need> needs, std::uint64_t begin, std::uint64_t end) {
  const Source& source = *needs[0].source;
  if (needs.size() > 1 || source.read->tensor->dtype != source.read->into.dtype) return nullptr;
  std::byte* target = nullptr;
  source.for_each_run(begin, end, [&](const Overlap::Run& run) {
    if (static_cast<std::uint64_t>(run.count) * source.element() == end - begin) target = source.target(run);
  });
  return target;
}

/// Reads the block of `needs` (one and the same), verifies it and hands out what is wanted.
void read_block(const std::filesystem::path& dir, const StoredFile& stored, std::span<const Need> needs, Tensor& staging) {
  const std::size_t block = needs[0].block;
  const std::uint64_t begin = block * kBlockBytes, end = std::min(begin + kBlockBytes, stored.bytes);
  std::byte* const direct = direct_target(needs, begin, end);
  if (direct == nullptr && !staging.defined()) staging = Tensor::empty(Shape{static_cast<std::int64_t>(kBlockBytes)}, DType::kU8);
  std::byte* const bytes = direct != nullptr ? direct : static_cast<std::byte*>(staging.view().data);
  open_part(dir / stored.name).read_at(begin, {bytes, static_cast<std::size_t>(end - begin)});
  if (hash128({bytes, static_cast<std::size_t>(end - begin)}) != stored.blocks[block]) {
    throw DamagedDataError("{}; it holds a part of {}", damaged_block(dir, stored, block), needs[0].source->read->tensor->name);
  }
  if (direct != nullptr) return;
  for (const Need& need : needs) {
    need.source->for_each_run(
        begin, end, [&](const Overlap::Run& run) { copy_run(*need.source, run, bytes + (need.source->file_byte(run) - begin)); });
  }
}

}  // namespace

void read_slices(const std::filesystem::path& dir, const Manifest& manifest, std::span<const SliceRead> reads) {
  for (const SliceRead& read : reads) {
    HADAL_CHECK(read.first >= 0 && read.first + read.into.numel() <= read.slice.numel(), "{}: {} elements from {} of slice {}",
                read.tensor->name, read.into.numel(), read.first, read.slice.str());
  }
  const std::vector<Source> sources = sources_of(reads);
  const std::vector<Need> needs = needs_of(sources);
  std::vector<std::span<const Need>> blocks;
  for (std::size_t begin = 0, end = 0; begin < needs.size(); begin = end) {
    while (end < needs.size() && needs[end].file == needs[begin].file && needs[end].block == needs[begin].block) ++end;
    blocks.emplace_back(needs.data() + begin, end - begin);
  }
  std::vector<Tensor> staging(static_cast<std::size_t>(num_threads()));
  parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t i) {
    const std::span<const Need> block = blocks[static_cast<std::size_t>(i)];
    read_block(dir, manifest.files[static_cast<std::size_t>(block[0].file)], block,
               staging[static_cast<std::size_t>(thread_index())]);
  });
}

}  // namespace hadal::checkpoint
