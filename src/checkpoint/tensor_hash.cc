#include "checkpoint/tensor_hash.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "checkpoint/overlap.h"
#include "core/tensor.h"

namespace hadal::checkpoint {
namespace {

constexpr std::int64_t kBandBytes = 4 << 20;

}  // namespace

Hash128 hash_pieces(const StoredTensor& tensor, OpenFiles& files, const OnBytes& on_bytes) {
  const Slice whole = whole_slice(tensor.shape);
  std::vector<Overlap> overlaps;
  for (const Piece& piece : tensor.pieces) overlaps.emplace_back(piece.slice, whole);
  const auto element = static_cast<std::int64_t>(size_of(tensor.dtype));
  const std::int64_t numel = tensor.shape.numel();
  const std::int64_t band_numel = std::min(numel, kBandBytes / element);
  Tensor band = Tensor::empty(Shape{band_numel * element}, DType::kU8);
  Tensor packed = Tensor::empty(Shape{band_numel * element}, DType::kU8);
  auto* const to = band.view().as<std::uint8_t>();
  auto* const from = packed.view().as<std::uint8_t>();
  Hasher hasher;
  for (std::int64_t begin = 0; begin < numel; begin += band_numel) {
    const ElementRange in_band{begin, std::min(numel, begin + band_numel)};
    for (std::size_t i = 0; i < overlaps.size(); ++i) {
      // A piece is part of the whole: what a band takes of it is one range of the file.
      const ElementRange range = overlaps[i].from_range(in_band);
      if (range.begin == range.end) continue;
      const Piece& piece = tensor.pieces[i];
      const auto bytes = static_cast<std::size_t>((range.end - range.begin) * element);
      files.at(piece.file)
          .read_at(piece.offset + static_cast<std::uint64_t>(range.begin * element),
                   std::as_writable_bytes(std::span(from, bytes)));
      overlaps[i].for_each(range, in_band, [&](const Overlap::Run& run) {
        std::memcpy(to + (run.to - begin) * element, from + (run.from - range.begin) * element,
                    static_cast<std::size_t>(run.count * element));
      });
    }
    const auto bytes = static_cast<std::size_t>((in_band.end - in_band.begin) * element);
    hasher.update(std::as_bytes(std::span(to, bytes)));
    if (on_bytes) on_bytes(bytes);
  }
  return hasher.digest();
}

}  // namespace hadal::checkpoint
