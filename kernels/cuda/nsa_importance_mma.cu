// Importance of selection blocks for bf16 heads that are too wide for the tiles of nsa_importance_tiles.cu, on tensor cores. A warp owns 16
// queries; a tile of compressed keys lies in shared memory and meets the queries of one head after another, whose fragments come through a
// ring in shared memory, a step ahead: each thread copies what it will read itself. exp(s - lse) is added up over the group's heads in
// registers, and the sums are spread over the selection blocks at the end of the tile.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_mma.cuh"
#include "kernels/cuda/nsa_select.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kRows = 16;   // queries of a warp
constexpr int kKeys = 128;  // of a tile
constexpr int kSumsStride = kKeys + 4;
constexpr std::size_t kLargestShared = 227 * 1024;

constexpr int kRing = 2;  // steps of 32 channels of queries in flight, of a warp
constexpr std::size_t kRingBytes = static_cast<std::size_t>(kWarps) * kRing * 2 * kWarp * sizeof(uint4);
constexpr std::size_t shared_bytes(int width) {
  return static_cast<std::size_t>(kKeys) * width * sizeof(bf16) + static_cast<std::size_t>(kWarps) * kRows * kSumsStride * sizeof(float) + kRingBytes;
}

// 16-byte pieces of a row change places in odd rows, so that 8 lanes that read 4 pieces of 2 rows meet all banks once.
__device__ int piece_of(int row, int piece) { return piece ^ (row % 2 * 4); }

__global__ void __launch_bounds__(kWarps* kWarp, 1) importance_kernel(ImportanceInputs<bf16> in, float* importance) {
  extern __shared__ __align__(128) unsigned char shared[];
  const ImportanceSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  const int width = sizes.width(), pieces = width / 8, steps = width / 32, group = static_cast<int>(blockIdx.y);
  const uint4* const keys = reinterpret_cast<const uint4*>(shared);
  float* const sums = reinterpret_cast<float*>(shared + static_cast<std::size_t>(kKeys) * width * sizeof(bf16)) + warp * kRows * kSumsStride;
  // The thread's own places: step i of the ring is ring[(2 i + half) * 32].
  uint4* const ring = reinterpret_cast<uint4*>(shared + static_cast<std::size_t>(kKeys) * width * sizeof(bf16) +
                                               static_cast<std::size_t>(kWarps) * kRows * kSumsStride * sizeof(float)) +
                      warp * kRing * 2 * kWarp + lane;
  // The last queries, which have most to do, come first.
  const std::int64_t tile_first = in.range.first + static_cast<std::int64_t>(gridDim.x - 1 - blockIdx.x) * kWarps * kRows,
                     first = tile_first + warp * kRows;
  const std::int64_t b = in.range.begin + blockIdx.z, queries = in.range.last - in.range.first;
  const std::int64_t tile_end = tile_first + kWarps * kRows < in.range.last ? tile_first + kWarps * kRows : in.range.last;
  const int end = static_cast<int>(sizes.visible(sizes.query_start + tile_end - 1));
  const int rows = static_cast<int>(first >= in.range.last ? 0 : in.range.last - first < kRows ? in.range.last - first : kRows);
  float* const to = importance + ((blockIdx.z * queries + first - in.range.first) * sizes.groups + group) * sizes.blocks;
  const std::int64_t to_stride = sizes.groups * sizes.blocks;
  for (int row = 0; row < rows; ++row) {
    for (std::int64_t j = lane; j < sizes.blocks; j += kWarp) to[row * to_stride + j] = 0.0f;
  }

  std::int64_t token[2];
  int visible[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t wanted = first + quad + 8 * half, t = wanted < in.range.last ? wanted : in.range.last - 1;
    token[half] = b * sizes.tokens + t;
    visible[half] = static_cast<int>(sizes.visible(sizes.query_start + t));
  }
  const float scale = sizes.scale * kLog2E, inverse_stride = 1.0f / static_cast<float>(sizes.block_stride);
  const int first_head = group * sizes.heads_per_group(), last_head = first_head + sizes.heads_per_group();

  for (int tile = 0; tile < end; tile += kKeys) {
    float p[kKeys / 8][4] = {};
    for (int kv = first_head / sizes.heads_per_key(); kv * sizes.heads_per_key() < last_head; ++kv) {
      __syncthreads();  // the tile before has been read
      for (int i = static_cast<int>(threadIdx.x); i < kKeys * pieces; i += kWarps * kWarp) {
        const int row = i / pieces, piece = i % pieces;
        const bool valid = tile + row < end;
        const std::int64_t key = b * sizes.keys + (valid ? tile + row : 0);
        const bf16* const from = piece * 8 < sizes.key_width ? in.k.at(key, kv) + piece * 8 : in.k_shared.at(key, 0) + piece * 8 - sizes.key_width;
        copy16_async(shared_address(keys + row * pieces + piece_of(row, piece)), from, valid);
      }
      commit_copies();
      const int head_begin = max(first_head, kv * sizes.heads_per_key()), head_end = min(last_head, (kv + 1) * sizes.heads_per_key());
      int ahead_head = head_begin, ahead_step = 0, ahead = 0;  // the next step to be copied, and its place
      const auto fetch = [&] {
        if (ahead_head < head_end) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            copy16_async(shared_address(ring + (2 * ahead + half) * kWarp), in.q.at(token[half], ahead_head) + ahead_step * 32 + pair * 8, true);
          }
          if (++ahead_step == steps) {
            ahead_step = 0;
            ++ahead_head;
          }
        }
        ahead = (ahead + 1) % kRing;
        commit_copies();
      };
#pragma unroll
      for (int i = 0; i < kRing - 1; ++i) fetch();
      wait_copies<kRing - 1>();
      __syncthreads();

      int at = 0;
      float next_lse[2];
      const auto fetch_lse = [&](int head) {
#pragma unroll
        for (int half = 0; half < 2; ++half) next_lse[half] = __ldg(in.lse + token[half] * sizes.heads + head) * kLog2E;
      };
      fetch_lse(head_begin);
      for (int head = head_begin; head < head_end; ++head) {
        float s[kKeys / 8][4] = {};
        const float lse[2] = {next_lse[0], next_lse[1]};
        if (head + 1 < head_end) fetch_lse(head + 1);
        for (int step = 0; step < steps; ++step) {
          wait_copies<kRing - 2>();
          const uint4 low = ring[2 * at * kWarp], high = ring[(2 * at + 1) * kWarp];
          at = (at + 1) % kRing;
          constexpr int kTurn = 4;  // tiles whose products take turns
#pragma unroll
          for (int n = 0; n < kKeys / 8; n += kTurn) {
            uint4 b[kTurn];
#pragma unroll
            for (int i = 0; i < kTurn; ++i) {
              const int row = (n + i) * 8 + quad;
              b[i] = keys[row * pieces + piece_of(row, step * 4 + pair)];
            }
            mma32(s + n, low, high, b);
          }
          fetch();  // to the place of the step before, whose products have been asked for
        }
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) p[n][i] += fast_exp2(fmaf(s[n][i], scale, -lse[i / 2]));
        }
      }
    }
    __syncwarp();  // the sums of the tile before have been read
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int column = n * 8 + pair * 2;
        const float a = tile + column < visible[half] ? p[n][2 * half] : 0.0f, c = tile + column + 1 < visible[half] ? p[n][2 * half + 1] : 0.0f;
        *reinterpret_cast<float2*>(sums + (quad + 8 * half) * kSumsStride + column) = make_float2(a, c);
      }
    }
    __syncwarp();
    const int tile_keys_end = min(tile + kKeys, end);
    // A lane a selection block, all rows of it together.
    const int last_block = min(sizes.blocks_end(tile_keys_end - 1), static_cast<int>(sizes.blocks));
    for (int j = tile * sizes.block_stride / sizes.select_block + lane; j < last_block; j += kWarp) {
      const int first_key = sizes.first_key(j);
      float share_sum[kRows];
#pragma unroll
      for (int row = 0; row < kRows; ++row) share_sum[row] = first_key < tile && row < rows ? to[row * to_stride + j] : 0.0f;
      for (int i = max(tile, first_key); i < tile_keys_end && i * sizes.block_stride < (j + 1) * sizes.select_block; ++i) {
        const float share = static_cast<float>(sizes.overlap(i, j)) * inverse_stride;
#pragma unroll
        for (int row = 0; row < kRows; ++row) share_sum[row] += sums[row * kSumsStride + i - tile] * share;
      }
#pragma unroll
      for (int row = 0; row < kRows; ++row) {
        if (row < rows) to[row * to_stride + j] = share_sum[row];
      }
    }
  }
}

void start(Stream& stream, const char* op, const ImportanceInputs<bf16>& in, float* importance) {
  const std::size_t shared = shared_bytes(in.sizes.width());
  allow_shared_memory(importance_kernel, shared, op);
  const std::int64_t queries = in.range.last - in.range.first;
  const dim3 grid(static_cast<unsigned>((queries + kWarps * kRows - 1) / (kWarps * kRows)), static_cast<unsigned>(in.sizes.groups),
                  static_cast<unsigned>(in.range.end - in.range.begin));
  importance_kernel<<<grid, kWarps * kWarp, shared, native(stream)>>>(in, importance);
  check_launch(op);
}

template <class Rows>
bool aligned(const Rows& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.token_stride % 8 == 0 && x.head_stride % 8 == 0;
}

}  // namespace

bool mma_importance(Stream& stream, const char* op, const ImportanceInputs<bf16>& in, float* importance) {
  const int width = in.sizes.width();
  if (width % 64 != 0 || in.sizes.key_width % 8 != 0 || shared_bytes(width) > kLargestShared || !aligned(in.q) || !aligned(in.k) ||
      !aligned(in.k_shared)) {
    return false;
  }
  start(stream, op, in, importance);
  return true;
}

}  // namespace hadal::kernels::cuda
