#include "kernels/key_cut.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

namespace hadal::kernels {
namespace {

// An estimate's unit is the time in which a block multiplies a tile of queries, about 1.4 us.
constexpr int kMultiprocessors = 132;   ///< of an H100 or H200; no property of the card at hand, so that the cut is the same on any
constexpr int kStartTiles = 3;          ///< a block's first copies and its stores
constexpr int kSumTiles = 4;            ///< the launch that sums
constexpr double kBytesPerTile = 3.5e6; ///< moved by the card meanwhile

struct Estimate {
  double time, least;  ///< of this cut, and of any cut into no fewer parts
};

Estimate estimate(const KeyCutShape& shape, const KeyCut& cut, std::int64_t tile_queries) {
  std::vector<std::int64_t> walks;  // query tiles of a block, for each kind of block
  for (std::int64_t key = 0; key < shape.keys; key += kKeyTile) {
    const std::int64_t first = shape.first_query(key), last = shape.last_query(std::min(key + kKeyTile, shape.keys) - 1);
    if (first >= last) continue;
    const std::int64_t first_tile = first / tile_queries, last_tile = (last + tile_queries - 1) / tile_queries;
    for (std::int64_t range = 0; range < cut.ranges; ++range) {
      const std::int64_t begin = std::max(range * cut.range_tiles, first_tile), end = std::min((range + 1) * cut.range_tiles, last_tile);
      if (begin < end) walks.push_back(end - begin);
    }
  }
  std::ranges::sort(walks, std::greater<>());
  const std::int64_t alike = shape.batch * shape.key_heads * cut.heads, blocks = alike * static_cast<std::int64_t>(walks.size());
  const std::int64_t heads = (shape.heads / shape.key_heads + cut.heads - 1) / cut.heads;
  const double tiles = std::accumulate(walks.begin(), walks.end(), 0.0) * static_cast<double>(shape.batch * shape.heads);
  const double filled = (tiles + static_cast<double>(blocks) * kStartTiles) / kMultiprocessors;
  double longest = filled;
  for (std::int64_t round = 0; round * kMultiprocessors < blocks; ++round) {  // so many heavier blocks and one: somebody gets round + 1
    const std::int64_t walk = walks[static_cast<std::size_t>(round * kMultiprocessors / alike)];
    longest = std::max(longest, static_cast<double>((round + 1) * (walk * heads + kStartTiles)));
  }
  const double rows = static_cast<double>(cut.count() * shape.batch * shape.keys * shape.key_heads);
  const double sums = cut.count() == 1 ? 0 : kSumTiles + 2 * sizeof(float) * rows * static_cast<double>(shape.columns) / kBytesPerTile;
  return {longest + sums, filled + sums};
}

}  // namespace

std::int64_t KeyCutShape::first_query(std::int64_t key) const {
  const std::int64_t position = block_length > 0 ? key * block_stride + block_length - 1 : key;
  return std::clamp<std::int64_t>(position - query_start, 0, tokens);
}

std::int64_t KeyCutShape::last_query(std::int64_t key) const {
  return block_length > 0 || window == 0 ? tokens : std::clamp<std::int64_t>(key + window - query_start, 0, tokens);
}

KeyCut cut_keys(const KeyCutShape& shape, std::int64_t tile_queries) {
  const std::int64_t tiles = std::max<std::int64_t>(1, (shape.tokens + tile_queries - 1) / tile_queries), group = shape.heads / shape.key_heads;
  KeyCut best;
  double best_time = 0;
  for (std::int64_t count = 1; count <= group * tiles; count *= 2) {
    KeyCut cut{.heads = std::min(count, group), .ranges = 1, .range_tiles = tiles};
    cut.range_tiles = (tiles * cut.heads + count - 1) / count;
    cut.ranges = (tiles + cut.range_tiles - 1) / cut.range_tiles;
    const Estimate found = estimate(shape, cut, tile_queries);
    if (count == 1 || found.time < best_time) {
      best = cut;
      best_time = found.time;
    }
    if (found.least >= best_time) break;
  }
  return best;
}

}  // namespace hadal::kernels
