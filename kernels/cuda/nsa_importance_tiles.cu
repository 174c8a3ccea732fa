// Importance of selection blocks for bf16 heads of 64, 128 or 192 on Hopper's warpgroup products: 128 queries of a group against tiles of 128
// compressed keys.
//
// One warp loads, by bulk tensor copies: a tile of keys (once for all heads that share it), and the queries of one head after another
// through a ring. Two warpgroups own 64 queries each; one multiplies while the other takes exponentials. exp(s - lse) is added up over the
// group's heads in registers, and spread over the selection blocks at the end of the tile. Tiles overlap by the keys that touch two
// blocks, so that each has all keys of its own blocks. Several blocks of threads take turns at the tiles of the same queries: the queries of all
// heads pass once a tile, and those that run at the same time have to fit into the L2 cache together.
#include "kernels/cuda/attention_products.cuh"
#include "kernels/cuda/check.h"
#include "kernels/cuda/heads_map.h"
#include "kernels/cuda/nsa_mma.cuh"
#include "kernels/cuda/nsa_select.cuh"
#include "kernels/cuda/tile_copy.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kGroupThreads = 128, kThreads = 3 * kGroupThreads, kMultiplierWarps = 2 * kGroupThreads / kWarp;
constexpr int kLoaderRegisters = 24, kMultiplierRegisters = 240;
constexpr int kTileRows = 128;  // queries, and keys, of a tile
constexpr int kWarpRows = 16;   // queries of a warp
constexpr int kKeyStages = 2;
constexpr int kMostChunks = 3;
constexpr int kSplit = 4;  // blocks of threads that share the tiles of the same queries
constexpr int kTileChunk = kTileRows * hopper::kChunkRowBytes;
constexpr int kTurn = 1;  // named barriers: the turn of warpgroup i is kTurn + i

struct Maps {
  CUtensorMap q, k, k_shared;
};

// Which blocks and keys belong to a tile.
struct TileCut {
  int blocks;     ///< of a tile
  int per_block;  ///< keys that begin in a block
  int before;     ///< keys that touch a block and begin before it

  explicit TileCut(const ImportanceSizes& sizes)
      : per_block(sizes.select_block / sizes.block_stride), before(sizes.block_length / sizes.block_stride - 1) {
    blocks = (kTileRows - before) / per_block;
  }
  __device__ int first_key(int tile) const { return max(0, tile * blocks * per_block - before); }
};

// Stages of queries: as many as shared memory has room for.
__host__ __device__ constexpr int query_stages(int chunks) { return chunks < kMostChunks ? 4 : 2; }

template <int kChunks>
struct Barriers {
  std::uint64_t keys_full[kKeyStages], keys_empty[kKeyStages], queries_full[query_stages(kChunks)], queries_empty[query_stages(kChunks)];
};

constexpr int kSpreadRows = 8;             // queries whose sums a warp spreads at a time
constexpr int kSumsStride = kTileRows + 5;  // reading by query and selection block meets each bank once
constexpr int kSumsBytes = kMultiplierWarps * kSpreadRows * kSumsStride * static_cast<int>(sizeof(float));

template <int kChunks>
constexpr int shared_bytes() {
  return (kKeyStages + query_stages(kChunks)) * kChunks * kTileChunk + kSumsBytes + static_cast<int>(sizeof(Barriers<kChunks>)) + 1024;
}

// The group's heads that share key head kv.
struct HeadRange {
  int begin, end;

  __device__ HeadRange(const ImportanceSizes& sizes, int group, int kv)
      : begin(max(group * sizes.heads_per_group(), kv * sizes.heads_per_key())),
        end(min((group + 1) * sizes.heads_per_group(), (kv + 1) * sizes.heads_per_key())) {}
};

// body(tile, kv, whether it is the first, the last of the tile) for every tile of this block of threads, in the order of the rings.
template <class Body>
__device__ __forceinline__ void for_each_tile(const ImportanceSizes& sizes, const TileCut& cut, int group, int touched, const Body& body) {
  const int first_kv = group * sizes.heads_per_group() / sizes.heads_per_key();
  const int last_kv = ((group + 1) * sizes.heads_per_group() - 1) / sizes.heads_per_key();
  for (int tile = static_cast<int>(blockIdx.x) % kSplit; tile * cut.blocks < touched; tile += kSplit) {
    for (int kv = first_kv; kv <= last_kv; ++kv) body(tile, kv, kv == first_kv, kv == last_kv);
  }
}

template <int kChunks>
__device__ void load(const Maps& maps, const ImportanceSizes& sizes, const TileCut& cut, Barriers<kChunks>* barriers, std::uint32_t keys,
                     std::uint32_t queries, int group, int touched, int first, int sequence) {
  constexpr int kBytes = kChunks * kTileChunk;
  const int key_chunks = sizes.key_width / hopper::kChunkColumns;
  hopper::Ring<kKeyStages> key_ring;
  hopper::Ring<query_stages(kChunks)> query_ring;
  for_each_tile(sizes, cut, group, touched, [&](int tile, int kv, bool, bool) {
    std::uint64_t* const keys_full = &barriers->keys_full[key_ring.stage];
    hopper::wait(&barriers->keys_empty[key_ring.stage], key_ring.parity ^ 1);
    hopper::arrive_expecting(keys_full, kBytes);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const bool own = chunk < key_chunks;
      hopper::copy_chunk(keys + key_ring.stage * kBytes + chunk * kTileChunk, own ? maps.k : maps.k_shared, keys_full,
                         (own ? chunk : chunk - key_chunks) * hopper::kChunkColumns, own ? kv : 0, cut.first_key(tile), sequence);
    }
    key_ring.advance();
    const HeadRange heads(sizes, group, kv);
    for (int head = heads.begin; head < heads.end; ++head) {
      std::uint64_t* const queries_full = &barriers->queries_full[query_ring.stage];
      hopper::wait(&barriers->queries_empty[query_ring.stage], query_ring.parity ^ 1);
      hopper::arrive_expecting(queries_full, kBytes);
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        hopper::copy_chunk(queries + query_ring.stage * kBytes + chunk * kTileChunk, maps.q, queries_full, chunk * hopper::kChunkColumns, head, first,
                           sequence);
      }
      query_ring.advance();
    }
  });
}

// The sums p of a tile's keys over the selection blocks of the warp's `rows` queries from `to` on: a lane several blocks of two queries.
__device__ __forceinline__ void spread(const ImportanceSizes& sizes, const TileCut& cut, const float (&p)[64], float* sums, int tile, int touched,
                                       const int (&visible)[2], int rows, float* to, std::int64_t to_stride) {
  constexpr int kBlockLanes = 8, kRowLanes = kWarp / kBlockLanes, kEachRow = kSpreadRows / kRowLanes, kEachBlock = 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, quad = lane / 4, pair = lane % 4;
  const int first_key = cut.first_key(tile), first_block = tile * cut.blocks, last_block = min(first_block + cut.blocks, touched);
  const float inverse_stride = 1.0f / static_cast<float>(sizes.block_stride);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    __syncwarp();  // the sums before have been read
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int column = i / 2 * 8 + pair * 2 + i % 2;
      sums[quad * kSumsStride + column] = first_key + column < visible[half] ? p[i / 2 * 4 + 2 * half + i % 2] : 0.0f;
    }
    __syncwarp();
    const float* const own = sums + lane / kBlockLanes * kSumsStride;
    for (int base = first_block + lane % kBlockLanes; base < last_block; base += kEachBlock * kBlockLanes) {
      float shares[kEachBlock][kEachRow] = {};
      for (int key = -cut.before; key < cut.per_block; ++key) {  // counted from the first that begins in the block
        const int begin = key * sizes.block_stride, overlap = min(begin + sizes.block_length, sizes.select_block) - max(begin, 0);
        const float share = static_cast<float>(overlap) * inverse_stride;
#pragma unroll
        for (int n = 0; n < kEachBlock; ++n) {
          const int column = (base + n * kBlockLanes) * cut.per_block + key - first_key;
          const float factor = column < 0 ? 0.0f : share;  // there are no keys before the first block
#pragma unroll
          for (int i = 0; i < kEachRow; ++i) shares[n][i] += own[i * kRowLanes * kSumsStride + min(max(column, 0), kTileRows - 1)] * factor;
        }
      }
#pragma unroll
      for (int n = 0; n < kEachBlock; ++n) {
#pragma unroll
        for (int i = 0; i < kEachRow; ++i) {
          const int row = half * kSpreadRows + lane / kBlockLanes + i * kRowLanes, block = base + n * kBlockLanes;
          if (row < rows && block < last_block) to[row * to_stride + block] = shares[n][i];
        }
      }
    }
  }
}

// A warpgroup's 64 queries.
template <int kChunks>
__device__ __forceinline__ void weigh(const ImportanceSizes& sizes, const TileCut& cut, const ImportanceRange& range, Barriers<kChunks>* barriers,
                                      std::uint32_t keys, std::uint32_t queries, float* sums, const float* all_lse, int group, int touched,
                                      std::int64_t tile_first, int warpgroup, float* importance) {
  constexpr int kBytes = kChunks * kTileChunk;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) % kGroupThreads / kWarp, quad = lane / 4;
  const std::int64_t first = tile_first + warpgroup * 64 + warp * kWarpRows, b = range.begin + blockIdx.z, num_queries = range.last - range.first;
  const int rows = static_cast<int>(first >= range.last ? 0 : range.last - first < kWarpRows ? range.last - first : kWarpRows);
  float* const to = importance + ((blockIdx.z * num_queries + first - range.first) * sizes.groups + group) * sizes.blocks;
  const std::int64_t to_stride = sizes.groups * sizes.blocks;
  if (blockIdx.x % kSplit == 0) {
    for (int row = 0; row < rows; ++row) {
      for (std::int64_t j = touched + lane; j < sizes.blocks; j += kWarp) to[row * to_stride + j] = 0.0f;
    }
  }
  const float* lse_of[2];
  int visible[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t wanted = first + quad + 8 * half, t = wanted < range.last ? wanted : range.last - 1;
    lse_of[half] = all_lse + (b * sizes.tokens + t) * sizes.heads;
    visible[half] = static_cast<int>(sizes.visible(sizes.query_start + t));
  }
  const float scale = sizes.scale * kLog2E;
  const std::uint32_t own_queries = queries + warpgroup * 64 * hopper::kChunkRowBytes;
  const auto my_turn = [&] { asm volatile("bar.sync %0, 256;" ::"r"(kTurn + warpgroup) : "memory"); };
  const auto your_turn = [&] { asm volatile("bar.arrive %0, 256;" ::"r"(kTurn + 1 - warpgroup) : "memory"); };
  const auto release = [&](std::uint64_t* barrier) {
    if (lane == 0) hopper::arrive(barrier);
  };

  if (warpgroup == 1) your_turn();
  hopper::Ring<kKeyStages> key_ring;
  hopper::Ring<query_stages(kChunks)> query_ring;
  float s[64], p[64];
  for_each_tile(sizes, cut, group, touched, [&](int tile, int kv, bool is_first, bool is_last) {
    if (is_first) hopper::clear(p);
    const HeadRange heads(sizes, group, kv);
    hopper::wait(&barriers->keys_full[key_ring.stage], key_ring.parity);
    for (int head = heads.begin; head < heads.end; ++head) {
      const float lse[2] = {__ldg(lse_of[0] + head) * kLog2E, __ldg(lse_of[1] + head) * kLog2E};
      hopper::wait(&barriers->queries_full[query_ring.stage], query_ring.parity);
      my_turn();
      hopper::hold(s);
      hopper::product_fence();
#pragma unroll
      for (int step = 0; step < 4 * kChunks; ++step) {
        const std::uint32_t at = step / 4 * kTileChunk + step % 4 * 32;
        const std::uint64_t a = hopper::rows_operand(own_queries + query_ring.stage * kBytes + at);
        const std::uint64_t c = hopper::rows_operand(keys + key_ring.stage * kBytes + at);
        if (step == 0) {
          hopper::multiply_first(s, a, c);
        } else {
          hopper::multiply(s, a, c);
        }
      }
      hopper::product_commit();
      your_turn();
      hopper::product_wait<0>();
      hopper::hold(s);
      release(&barriers->queries_empty[query_ring.stage]);
      query_ring.advance();
#pragma unroll
      for (int i = 0; i < 64; ++i) p[i] += fast_exp2(fmaf(s[i], scale, -lse[i / 2 % 2]));
    }
    release(&barriers->keys_empty[key_ring.stage]);
    key_ring.advance();
    if (is_last) {
      spread(sizes, cut, p, sums + (warpgroup * 4 + warp) * kSpreadRows * kSumsStride, tile, touched, visible, rows, to, to_stride);
    }
  });
}

template <int kChunks>
__global__ void __launch_bounds__(kThreads, 1)
    importance_kernel(const __grid_constant__ Maps maps, const __grid_constant__ ImportanceSizes sizes, const __grid_constant__ TileCut cut,
                      const __grid_constant__ ImportanceRange range, const float* lse, float* importance) {
  extern __shared__ unsigned char memory[];
  unsigned char* const tiles = memory + (1024 - hopper::shared_address(memory) % 1024) % 1024;
  constexpr int kBytes = kChunks * kTileChunk, kTileBytes = (kKeyStages + query_stages(kChunks)) * kBytes;
  const std::uint32_t keys = hopper::shared_address(tiles), queries = keys + kKeyStages * kBytes;
  auto* const sums = reinterpret_cast<float*>(tiles + kTileBytes);
  auto* const barriers = reinterpret_cast<Barriers<kChunks>*>(tiles + kTileBytes + kSumsBytes);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kKeyStages; ++stage) {
      hopper::init_barrier(&barriers->keys_full[stage], 1);
      hopper::init_barrier(&barriers->keys_empty[stage], kMultiplierWarps);
    }
    for (int stage = 0; stage < query_stages(kChunks); ++stage) {
      hopper::init_barrier(&barriers->queries_full[stage], 1);
      hopper::init_barrier(&barriers->queries_empty[stage], kMultiplierWarps);
    }
    hopper::publish_barriers();
  }
  __syncthreads();
  const int group = static_cast<int>(blockIdx.x) / kSplit;
  // The last queries, which have most to do, come first.
  const std::int64_t first = range.first + static_cast<std::int64_t>(gridDim.y - 1 - blockIdx.y) * kTileRows;
  const std::int64_t last = first + kTileRows < range.last ? first + kTileRows : range.last;
  const int end = static_cast<int>(sizes.visible(sizes.query_start + last - 1));
  const int touched = end > 0 ? min(sizes.blocks_end(end - 1), static_cast<int>(sizes.blocks)) : 0;  // blocks with keys that are seen
  if (threadIdx.x < kGroupThreads) {
    hopper::give_registers<kLoaderRegisters>();
    if (threadIdx.x == 0) {
      load<kChunks>(maps, sizes, cut, barriers, keys, queries, group, touched, static_cast<int>(first), static_cast<int>(range.begin + blockIdx.z));
    }
  } else {
    hopper::take_registers<kMultiplierRegisters>();
    const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kGroupThreads, 0) - 1;
    weigh<kChunks>(sizes, cut, range, barriers, keys, queries, sums, lse, group, touched, first, warpgroup, importance);
  }
}

template <int kChunks>
void start(Stream& stream, const char* op, const ImportanceInputs<bf16>& in, const TileCut& cut, const Maps& maps, float* importance) {
  constexpr int kBytes = shared_bytes<kChunks>();
  allow_shared_memory(importance_kernel<kChunks>, kBytes, op);
  const std::int64_t query_tiles = (in.range.last - in.range.first + kTileRows - 1) / kTileRows;
  const dim3 grid(static_cast<unsigned>(in.sizes.groups * kSplit), static_cast<unsigned>(query_tiles),
                  static_cast<unsigned>(in.range.end - in.range.begin));
  importance_kernel<kChunks><<<grid, kThreads, kBytes, native(stream)>>>(maps, in.sizes, cut, in.range, in.lse, importance);
  check_launch(op);
}

}  // namespace

bool tiled_importance(Stream& stream, const char* op, const ImportanceInputs<bf16>& in, float* importance) {
  const ImportanceSizes& sizes = in.sizes;
  const std::int64_t sequences = in.range.end, keys = sequences * sizes.keys;
  const auto heads = [](const HeadRows<const bf16>& x, std::int64_t tokens, int count, int width) {
    return ConstHeads{x.data, DType::kBf16, tokens, count, width, x.token_stride, x.head_stride};
  };
  const ConstHeads q = heads(in.q, sequences * sizes.tokens, sizes.heads, sizes.width());
  const ConstHeads k = heads(in.k, keys, sizes.key_heads, sizes.key_width), k_shared = heads(in.k_shared, keys, 1, sizes.shared_width);
  const bool shared = sizes.shared_width > 0;
  const TileCut cut(sizes);
  if (cut.blocks < 1 || sizes.key_width % hopper::kChunkColumns != 0 || sizes.shared_width % hopper::kChunkColumns != 0 || !hopper::can_map(q) ||
      !hopper::can_map(k) || (shared && !hopper::can_map(k_shared))) {
    return false;
  }
  const auto map = [&](const ConstHeads& x) { return hopper::heads_map(x, sequences, kTileRows); };
  const Maps maps{map(q), map(k), shared ? map(k_shared) : CUtensorMap{}};
  switch (sizes.width() / hopper::kChunkColumns) {
    case 1:
      start<1>(stream, op, in, cut, maps, importance);
      return true;
    case 2:
      start<2>(stream, op, in, cut, maps, importance);
      return true;
    case kMostChunks:
      start<kMostChunks>(stream, op, in, cut, maps, importance);
      return true;
    default:
      return false;
  }
}

}  // namespace hadal::kernels::cuda
