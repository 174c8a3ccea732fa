// Attention over selected blocks for bf16 heads of 128 on tensor cores, where heads that share keys and selection come by 16: the blocks that any
// of 12 neighbouring tokens selected pass once through shared memory.
//
// One thread loads, by bulk tensor copies, the keys and values of these blocks in ascending order, 32 keys at a time, through a ring. A warp
// owns the 16 heads of a token, whose queries and sums stay in registers, and waits for the blocks that its token selected alone; a stage is free
// when the tokens that selected its block are done with it.
#include "kernels/cuda/check.h"
#include "kernels/cuda/heads_map.h"
#include "kernels/cuda/nsa_heads_plan.cuh"
#include "kernels/cuda/nsa_segments.cuh"
#include "kernels/cuda/nsa_selected.cuh"
#include "kernels/cuda/tile_copy.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWidth = 128;
constexpr int kTokens = 12;  // of a block of threads, a warp each
constexpr int kLoaderThreads = 128, kThreads = kLoaderThreads + kTokens * kWarp;
constexpr int kLoaderRegisters = 24, kTokenRegisters = 160;
constexpr int kStepKeys = 32, kStages = 12;
constexpr unsigned kNap = 100;  // ns between looks at how far the loader is
constexpr int kChunk = kStepKeys * hopper::kChunkRowBytes, kChunks = kWidth / hopper::kChunkColumns;
constexpr int kStageBytes = 2 * kChunks * kChunk;  // keys, then values
constexpr std::size_t kLargestShared = 227 * 1024;

// A block that is read: its number, and above it a bit for each token that selected it.
constexpr int kBlockBits = 32 - kTokens;
constexpr std::uint32_t kBlockMask = (1u << kBlockBits) - 1u;

struct Maps {
  CUtensorMap k, v;
};

struct Control {
  std::uint64_t full[kStages], empty[kStages];
  int count;   ///< blocks that are read
  int issued;  ///< steps whose stage is theirs
};

std::size_t shared_bytes(const SelectedSizes& sizes) {
  return 1024 + kStages * kStageBytes + sizeof(Control) + static_cast<std::size_t>(sizes.num_blocks) * sizeof(std::uint32_t);
}

// The tokens and heads of a block of threads.
struct UnionRows {
  std::int64_t sequence, first;  ///< first: counted within the sequence
  int tokens, first_head, kv, group;

  __device__ UnionRows(const SelectedSizes& sizes, const HeadSegments& segments) {
    const std::int64_t tiles = (sizes.tokens + kTokens - 1) / kTokens;
    const int part = static_cast<int>(blockIdx.y);
    sequence = blockIdx.x / tiles;
    first = blockIdx.x % tiles * kTokens;
    tokens = static_cast<int>(sizes.tokens - first < kTokens ? sizes.tokens - first : kTokens);
    first_head = part / segments.tiles() * segments.size + part % segments.tiles() * kTileRows;
    kv = first_head / sizes.heads_per_key();
    group = first_head / sizes.heads_per_group();
  }
  /// Keys that a token sees.
  __device__ int visible(const SelectedSizes& sizes, int token) const {
    const std::int64_t seen = sizes.query_start + first + token + 1;
    return static_cast<int>(seen < sizes.keys ? seen : sizes.keys);
  }
};

// entries [0, control.count): the blocks that are read, ascending. By all threads.
__device__ void find_union(const SelectedInputs<bf16>& in, const UnionRows& rows, std::uint32_t* entries, Control* control) {
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int candidates = (rows.visible(sizes, rows.tokens - 1) - 1) / sizes.select_block + 1;
  for (int i = static_cast<int>(threadIdx.x); i < candidates; i += kThreads) entries[i] = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < rows.tokens * sizes.chosen; i += kThreads) {
    const int token = i / sizes.chosen;
    const std::int64_t row = rows.sequence * sizes.tokens + rows.first + token;
    const int block = in.blocks[(row * sizes.groups + rows.group) * sizes.chosen + i % sizes.chosen];
    if (block >= 0 && block <= (rows.visible(sizes, token) - 1) / sizes.select_block) atomicOr(entries + block, 1u << (kBlockBits + token));
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    int count = 0;
    for (int base = 0; base < candidates; base += kWarp) {
      const std::uint32_t users = base + lane < candidates ? entries[base + lane] : 0u;
      const unsigned mask = __ballot_sync(0xffffffffu, users != 0);
      if (users != 0) entries[count + __popc(mask & ((1u << lane) - 1u))] = users | static_cast<std::uint32_t>(base + lane);
      count += __popc(mask);
      __syncwarp();
    }
    if (lane == 0) control->count = count;
  }
  __syncthreads();
}

__device__ inline void store_release(int* to, int value) {
  asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(hopper::shared_address(to)), "r"(value) : "memory");
}
__device__ inline int load_acquire(const int* from) {
  int value;
  asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(value) : "r"(hopper::shared_address(from)) : "memory");
  return value;
}
__device__ inline void arrive_many(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(hopper::shared_address(barrier)), "r"(arrivals) : "memory");
}

// By one thread. It arrives for the tokens that have no use for a block.
__device__ void load(const Maps& maps, const SelectedSizes& sizes, const UnionRows& rows, const std::uint32_t* entries, Control* control,
                     std::uint32_t stages) {
  const int parts = sizes.select_block / kStepKeys, steps = control->count * parts;
  hopper::Ring<kStages> ring;
  for (int step = 0; step < steps; ++step) {
    const std::uint32_t entry = entries[step / parts];
    const int key = static_cast<int>(entry & kBlockMask) * sizes.select_block + step % parts * kStepKeys;
    const int idle = kTokens - __popc(entry & ~kBlockMask);
    std::uint64_t* const full = &control->full[ring.stage];
    hopper::wait(&control->empty[ring.stage], ring.parity ^ 1);
    if (idle > 0) arrive_many(&control->empty[ring.stage], idle);
    hopper::arrive_expecting(full, kStageBytes);
    const std::uint32_t to = stages + ring.stage * kStageBytes;
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      hopper::copy_chunk(to + chunk * kChunk, maps.k, full, chunk * hopper::kChunkColumns, rows.kv, key, static_cast<int>(rows.sequence));
    }
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      hopper::copy_chunk(to + (kChunks + chunk) * kChunk, maps.v, full, chunk * hopper::kChunkColumns, rows.kv, key, static_cast<int>(rows.sequence));
    }
    store_release(&control->issued, step + 1);
    ring.advance();
  }
}

// 16 heads of a token.
class TokenAttention {
 public:
  __device__ TokenAttention(const HeadRows<const bf16>& q, std::int64_t token, int first_head, float scale)
      : lane_(static_cast<int>(threadIdx.x) % kWarp), scale_(scale) {
    const int quad = lane_ / 4, pair = lane_ % 4;
#pragma unroll
    for (int step = 0; step < kWidth / 16; ++step) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bf16* const from = q.at(token, first_head + quad + i % 2 * 8) + step * 16 + i / 2 * 8 + pair * 2;
        q_[step][i] = __ldg(reinterpret_cast<const std::uint32_t*>(from));
      }
    }
  }

  /// The keys and values of a stage, of which `seen` are seen.
  __device__ __forceinline__ void add(std::uint32_t stage, int seen) {
    constexpr int kTiles = kStepKeys / 8;
    const int row = lane_ % 8, pair = lane_ % 4;
    float s[kTiles][4] = {};
    const std::uint32_t keys = stage + row * hopper::kChunkRowBytes, key_piece = ((lane_ / 8) ^ row) * 16;
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      std::uint32_t b[kTiles][4];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) ldmatrix4(b[n], keys + c / 2 * kChunk + n * 8 * hopper::kChunkRowBytes + (key_piece ^ c % 2 * 64));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t(&a)[4] = q_[2 * c + half];
#pragma unroll
        for (int n = 0; n < kTiles; ++n) mma(s[n], a[0], a[1], a[2], a[3], b[n][2 * half], b[n][2 * half + 1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] *= scale_;
    }
    if (seen < kStepKeys) {
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = n * 8 + pair * 2 + i % 2 < seen ? s[n][i] : -INFINITY;
      }
    }
    float keep[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = row_max_[half];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      largest = quad_max(largest);
      const float base = largest == -INFINITY ? 0.0f : largest;  // a row that has seen nothing yet
      keep[half] = fast_exp2(row_max_[half] - base);
      row_max_[half] = largest;
      row_sum_[half] *= keep[half];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[n][i] = fast_exp2(s[n][i] - base);
          row_sum_[half] += s[n][i];
        }
      }
    }
    if (__any_sync(0xffffffffu, keep[0] != 1.0f || keep[1] != 1.0f)) {
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out_[n][i] *= keep[i / 2];
      }
    }
    const std::uint32_t values = stage + kChunks * kChunk + (lane_ / 8 % 2 * 8 + row) * hopper::kChunkRowBytes;
    const std::uint32_t value_piece = ((lane_ / 16) ^ row) * 16;
#pragma unroll
    for (int k = 0; k < kStepKeys / 16; ++k) {
      const std::uint32_t p[4] = {pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]), pack(s[2 * k + 1][0], s[2 * k + 1][1]),
                                  pack(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int c = 0; c < kWidth / 16; ++c) {
        std::uint32_t b[4];
        ldmatrix4_transposed(b, values + c / 4 * kChunk + k * 16 * hopper::kChunkRowBytes + (value_piece ^ c % 4 * 32));
        mma(out_[2 * c], p[0], p[1], p[2], p[3], b[0], b[1]);
        mma(out_[2 * c + 1], p[0], p[1], p[2], p[3], b[2], b[3]);
      }
    }
  }

  __device__ void store(const HeadRows<bf16>& o, float* lse, std::int64_t token, int first_head, int heads) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = quad_sum(row_sum_[half]), inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
      const int head = first_head + lane_ / 4 + 8 * half, pair = lane_ % 4;
      if (pair == 0) lse[token * heads + head] = sum == 0.0f ? -INFINITY : row_max_[half] * kLn2 + logf(sum);
      bf16* const to = o.at(token, head) + pair * 8;
#pragma unroll
      for (int n = 0; n < kWidth / 8; n += 4) {
        std::uint32_t words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = pack(out_[n + i][2 * half] * inverse, out_[n + i][2 * half + 1] * inverse);
        *reinterpret_cast<uint4*>(to + n * 8) = hopper::exchange_in_quad(words);
      }
    }
  }

 private:
  int lane_;
  float scale_;
  std::uint32_t q_[kWidth / 16][4];
  float out_[kWidth / 8][4] = {}, row_max_[2] = {-INFINITY, -INFINITY}, row_sum_[2] = {};
};

__device__ __forceinline__ void attend(const SelectedInputs<bf16>& in, const UnionRows& rows, const std::uint32_t* entries, Control* control,
                                       std::uint32_t stages, int index, const HeadRows<bf16>& o, float* lse) {
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, parts = sizes.select_block / kStepKeys, visible = rows.visible(sizes, index);
  const std::int64_t token = rows.sequence * sizes.tokens + rows.first + index;
  const int count = control->count;
  TokenAttention attention(in.q, token, rows.first_head, sizes.scale * kLog2E);
  for (int base = 0; base < count; base += kWarp) {
    const std::uint32_t entry = base + lane < count ? entries[base + lane] : 0u;
    unsigned wanted = __ballot_sync(0xffffffffu, (entry >> (kBlockBits + index) & 1u) != 0);
    while (wanted != 0) {
      const int at = __ffs(static_cast<int>(wanted)) - 1;
      wanted &= wanted - 1;
      const int first_key = static_cast<int>(__shfl_sync(0xffffffffu, entry, at) & kBlockMask) * sizes.select_block;
      for (int part = 0; part < parts; ++part) {
        const int step = (base + at) * parts + part, stage = step % kStages;
        // A barrier tells two phases apart: before the stage is this step's, it must not be asked.
        while (load_acquire(&control->issued) <= step) __nanosleep(kNap);
        hopper::wait(&control->full[stage], step / kStages % 2);
        attention.add(stages + stage * kStageBytes, visible - first_key - part * kStepKeys);
        __syncwarp();
        if (lane == 0) hopper::arrive(&control->empty[stage]);
      }
    }
  }
  attention.store(o, lse, token, rows.first_head, sizes.heads);
}

// grid (tiles of tokens of all sequences, tiles of heads): neighbours run together, the keys of one head after another's.
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ Maps maps, const __grid_constant__ SelectedInputs<bf16> in, const __grid_constant__ HeadSegments segments,
                   HeadRows<bf16> o, float* lse) {
  extern __shared__ unsigned char memory[];
  unsigned char* const tiles = memory + (1024 - hopper::shared_address(memory) % 1024) % 1024;
  auto* const control = reinterpret_cast<Control*>(tiles + kStages * kStageBytes);
  auto* const entries = reinterpret_cast<std::uint32_t*>(control + 1);
  const std::uint32_t stages = hopper::shared_address(tiles);
  const UnionRows rows(in.sizes, segments);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      hopper::init_barrier(&control->full[stage], 1);
      hopper::init_barrier(&control->empty[stage], kTokens);
    }
    control->issued = 0;
    hopper::publish_barriers();
  }
  find_union(in, rows, entries, control);
  if (threadIdx.x < kLoaderThreads) {
    hopper::give_registers<kLoaderRegisters>();
    if (threadIdx.x == 0) load(maps, in.sizes, rows, entries, control, stages);
  } else {
    hopper::take_registers<kTokenRegisters>();
    const int index = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kWarp, 0) - kLoaderThreads / kWarp;
    if (index < rows.tokens) attend(in, rows, entries, control, stages, index, o, lse);
  }
}

}  // namespace

bool union_forward(Stream& stream, const NsaSelectedForward& args) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const SelectedSizes& sizes = in.sizes;
  if (args.q.dtype != DType::kBf16 || sizes.keys == 0 || !HeadSegments::possible(sizes) || sizes.key_width != kWidth || sizes.shared_width != 0 ||
      sizes.value_width != kWidth || sizes.select_block % kStepKeys != 0 || sizes.num_blocks > static_cast<int>(kBlockMask) ||
      shared_bytes(sizes) > kLargestShared || !hopper::can_map(args.k) || !hopper::can_map(args.v) || !aligned16(args.q) || !aligned16(args.o)) {
    return false;
  }
  const HeadSegments segments(sizes);
  if (segments.size % kTileRows != 0) return false;
  const std::int64_t tiles = sizes.batch * ((sizes.tokens + kTokens - 1) / kTokens);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(segments.count * segments.tiles()));
  const Maps maps{hopper::heads_map(args.k, sizes.batch, kStepKeys), hopper::heads_map(args.v, sizes.batch, kStepKeys)};
  const std::size_t shared = shared_bytes(sizes);
  allow_shared_memory(forward_kernel, shared, args.kName);
  forward_kernel<<<grid, kThreads, shared, native(stream)>>>(maps, in, segments, rows_of<bf16>(args.o), args.lse.as<float>());
  check_launch(args.kName);
  return true;
}

}  // namespace hadal::kernels::cuda
