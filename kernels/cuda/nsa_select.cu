// Block selection of NSA. Probabilities of the compressed branch are recomputed from its lse tile by tile, summed over the heads of a
// group and spread over selection blocks on chip: neither scores nor probabilities are written. NsaSelect makes the importance of so
// many queries at a time, and chooses from it.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_select.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/cuda_scratch.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kHeadsAtOnce = 4;

// A block a (query, group), a thread a compressed key.
template <class T>
__global__ void __launch_bounds__(kThreads) importance_kernel(ImportanceInputs<T> in, float* importance) {
  extern __shared__ float q[];  // [kHeadsAtOnce, width]
  __shared__ float p[kThreads];
  const ImportanceSizes& sizes = in.sizes;
  const int group = static_cast<int>(blockIdx.x) % sizes.groups, width = sizes.width();
  const std::int64_t row = blockIdx.x / static_cast<unsigned>(sizes.groups), queries = in.range.last - in.range.first;
  const std::int64_t b = in.range.begin + row / queries, t = in.range.first + row % queries, token = b * sizes.tokens + t;
  const std::int64_t end = sizes.visible(sizes.query_start + t);
  float* const to = importance + (row * sizes.groups + group) * sizes.blocks;
  for (std::int64_t j = threadIdx.x; j < sizes.blocks; j += kThreads) to[j] = 0.0f;
  const int first_head = group * sizes.heads_per_group(), last_head = first_head + sizes.heads_per_group();
  for (std::int64_t tile = 0; tile < end; tile += kThreads) {
    const std::int64_t key = tile + threadIdx.x, key_row = b * sizes.keys + key;
    float sum = 0;
    for (int head0 = first_head; head0 < last_head; head0 += kHeadsAtOnce) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kHeadsAtOnce * width; i += kThreads) {
        const int head = head0 + i / width;
        if (head < last_head) q[i] = to_float(in.q.at(token, head)[i % width]) * (sizes.scale * kLog2E);
      }
      __syncthreads();
      for (int head = head0; key < end && head < last_head && head < head0 + kHeadsAtOnce; ++head) {
        const float* const from = q + (head - head0) * width;
        const T* const k = in.k.at(key_row, head / sizes.heads_per_key());
        float s = 0;
        for (int c = 0; c < sizes.key_width; ++c) s += from[c] * to_float(k[c]);
        if (sizes.shared_width > 0) {
          const T* const shared = in.k_shared.at(key_row, 0);
          for (int c = 0; c < sizes.shared_width; ++c) s += from[sizes.key_width + c] * to_float(shared[c]);
        }
        sum += exp2f(s - in.lse[token * sizes.heads + head] * kLog2E);
      }
    }
    p[threadIdx.x] = sum;
    __syncthreads();
    add_shares(sizes, p, static_cast<int>(tile), static_cast<int>(tile + kThreads < end ? tile + kThreads : end), static_cast<int>(threadIdx.x),
               kThreads, to);
  }
}

// The row (query, group) of a warp in the importance of a range, and where its choice goes.
struct ChoiceRow {
  const float* from;
  std::int32_t* to;
  unsigned own, count;  ///< blocks up to the query's own
};

struct Choice {
  const float* importance;  ///< [rows, blocks]
  std::int64_t rows, blocks, query_start, tokens;
  ImportanceRange range;
  int groups, select_block, n;
  std::int32_t* chosen;  ///< [B*S, Gs, n]

  __device__ ChoiceRow row(std::int64_t index) const {
    const std::int64_t query = index / groups, queries = range.last - range.first, b = range.begin + query / queries,
                       t = range.first + query % queries;
    const auto own = static_cast<unsigned>((query_start + t) / select_block);
    return {importance + index * blocks, chosen + ((b * tokens + t) * groups + index % groups) * n, own, own + 1};
  }
};

// Bits of importance in its order, from 1 on (0 is nothing); forced blocks above all. A NaN counts as zero.
constexpr unsigned kForcedRank = 0x7f800001u;
__device__ unsigned rank_of(float x, unsigned j, unsigned own) {
  const bool forced = j == 0 || j == own || j + 1 == own;
  return forced ? kForcedRank : 1u + (x > 0.0f ? __float_as_uint(x) : 0u);
}

// If there are no more than n, all are chosen: true, and it is done.
__device__ bool choose_all(const ChoiceRow& row, unsigned n, unsigned lane) {
  if (row.count > n) return false;
  for (unsigned i = lane; i < n; i += kWarp) row.to[i] = i < row.count ? static_cast<std::int32_t>(i) : -1;
  return true;
}

// A warp a row of at most 32 kEach blocks, kEach of them in a lane's registers. The n-th largest rank is closed in from both sides by counting;
// blocks above it are taken, and the lowest of those that have it.
template <int kEach>
__global__ void __launch_bounds__(kThreads) top_blocks_kernel(Choice choice) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (index >= choice.rows) return;
  const unsigned lane = threadIdx.x % kWarp, n = static_cast<unsigned>(choice.n);
  const ChoiceRow row = choice.row(index);
  if (choose_all(row, n, lane)) return;
  unsigned ranks[kEach], largest = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const unsigned j = static_cast<unsigned>(i) * kWarp + lane;
    ranks[i] = j < row.count ? rank_of(row.from[j], j, row.own) : 0u;
    if (ranks[i] < kForcedRank) largest = max(largest, ranks[i]);
  }
  const auto count = [&](unsigned least) {
    unsigned sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) sum += ranks[i] >= least ? 1u : 0u;
    return __reduce_add_sync(0xffffffffu, sum);
  };
  // At least n have `low`, fewer than n have `high`: with n lanes or more that hold a block, the lanes' largest are n blocks.
  unsigned low = n <= kWarp ? __reduce_min_sync(0xffffffffu, largest) : 0u, high = __reduce_max_sync(0xffffffffu, largest) + 1;
  if (count(high) >= n) {
    low = kForcedRank;
    high = kForcedRank + 1;
  }
  while (high - low > 1) {
    const unsigned middle = low + (high - low) / 2, found = count(middle);
    (found >= n ? low : high) = middle;
    if (found == n) break;
  }
  unsigned equal = n - count(low + 1);  // how many of those that have `low` are taken
  int written = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const unsigned same = __ballot_sync(0xffffffffu, ranks[i] == low), before = (1u << lane) - 1u;
    const bool taken = ranks[i] > low || (ranks[i] == low && static_cast<unsigned>(__popc(same & before)) < equal);
    const unsigned mask = __ballot_sync(0xffffffffu, taken);
    if (taken) row.to[written + __popc(mask & before)] = i * kWarp + static_cast<std::int32_t>(lane);
    written += __popc(mask);
    equal -= min(equal, static_cast<unsigned>(__popc(same)));
  }
}

// Rows of any length: the n-th largest is found by n passes, each for the largest below the one before, in an order of 64-bit keys of
// which none are equal.
__global__ void __launch_bounds__(kThreads) top_of_many_blocks_kernel(Choice choice) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (index >= choice.rows) return;
  const unsigned lane = threadIdx.x % kWarp;
  const ChoiceRow row = choice.row(index);
  if (choose_all(row, static_cast<unsigned>(choice.n), lane)) return;
  const auto key_of = [&](unsigned j) { return static_cast<unsigned long long>(rank_of(row.from[j], j, row.own)) << 32 | (0xffffffffu - j); };
  unsigned long long threshold = ~0ull;
  for (int k = 0; k < choice.n; ++k) {
    unsigned long long best = 0;
    for (unsigned j = lane; j < row.count; j += kWarp) {
      const unsigned long long key = key_of(j);
      if (key < threshold && key > best) best = key;
    }
    threshold = warp_max(best);
  }
  int written = 0;
  for (unsigned base = 0; base < row.count; base += kWarp) {
    const unsigned j = base + lane;
    const bool taken = j < row.count && key_of(j) >= threshold;
    const unsigned mask = __ballot_sync(0xffffffffu, taken);
    if (taken) row.to[written + __popc(mask & ((1u << lane) - 1u))] = static_cast<std::int32_t>(j);
    written += __popc(mask);
  }
}

template <class T, class Args>
ImportanceInputs<T> inputs_of(const Args& args, std::int64_t blocks) {
  ImportanceInputs<T> in{};
  in.sizes.tokens = args.q.tokens / args.batch;
  in.sizes.keys = args.k.tokens / args.batch;
  in.sizes.query_start = args.query_start;
  in.sizes.heads = static_cast<int>(args.q.heads);
  in.sizes.key_heads = static_cast<int>(args.k.heads);
  in.sizes.groups = static_cast<int>(args.num_groups);
  in.sizes.key_width = static_cast<int>(args.k.width);
  in.sizes.shared_width = args.k_shared.defined() ? static_cast<int>(args.k_shared.width) : 0;
  in.sizes.block_length = static_cast<int>(args.block_length);
  in.sizes.block_stride = static_cast<int>(args.block_stride);
  in.sizes.select_block = static_cast<int>(args.select_block);
  in.sizes.blocks = blocks;
  in.sizes.scale = static_cast<float>(args.scale);
  in.q = rows_of<T>(args.q);
  in.k = rows_of<T>(args.k);
  in.k_shared = rows_of<T>(args.k_shared);
  in.lse = args.lse.template as<float>();
  in.range = {0, args.batch, 0, in.sizes.tokens};
  return in;
}

std::int64_t queries_of(const ImportanceRange& range) { return (range.end - range.begin) * (range.last - range.first); }

template <class T>
void find_importance(Stream& stream, const char* op, const ImportanceInputs<T>& in, float* to) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (tiled_importance(stream, op, in, to) || mma_importance(stream, op, in, to)) return;
  }
  const auto grid = static_cast<unsigned>(queries_of(in.range) * in.sizes.groups);
  const std::size_t shared = static_cast<std::size_t>(kHeadsAtOnce * in.sizes.width()) * sizeof(float);
  allow_shared_memory(importance_kernel<T>, shared, op);
  importance_kernel<T><<<grid, kThreads, shared, native(stream)>>>(in, to);
  check_launch(op);
}

void choose(Stream& stream, const char* op, const float* importance, std::int64_t blocks, const ImportanceRange& range, std::int64_t query_start,
            std::int64_t select_block, std::int64_t tokens, const View& chosen) {
  const std::int64_t groups = chosen.shape[1], rows = queries_of(range) * groups;
  const Choice choice{importance,
                      rows,
                      blocks,
                      query_start,
                      tokens,
                      range,
                      static_cast<int>(groups),
                      static_cast<int>(select_block),
                      static_cast<int>(chosen.shape[2]),
                      chosen.as<std::int32_t>()};
  constexpr std::int64_t kRows = kThreads / kWarp;
  const auto grid = static_cast<unsigned>((rows + kRows - 1) / kRows);
  // Blocks behind the last query's own do not count.
  const std::int64_t count = (query_start + range.last - 1) / select_block + 1;
  if (count <= 4 * kWarp) {
    top_blocks_kernel<4><<<grid, kThreads, 0, native(stream)>>>(choice);
  } else if (count <= 16 * kWarp) {
    top_blocks_kernel<16><<<grid, kThreads, 0, native(stream)>>>(choice);
  } else if (count <= 32 * kWarp) {
    top_blocks_kernel<32><<<grid, kThreads, 0, native(stream)>>>(choice);
  } else {
    top_of_many_blocks_kernel<<<grid, kThreads, 0, native(stream)>>>(choice);
  }
  check_launch(op);
}

// Positions are 32-bit numbers in the kernels.
template <class Args>
void check_positions(const Args& args) {
  HADAL_CHECK(args.query_start + args.q.tokens / args.batch < INT32_MAX / 2, "{}: positions up to {}", Args::kName,
              args.query_start + args.q.tokens / args.batch);
}

void importance_of_blocks(Stream& stream, const NsaImportance& args) {
  check_positions(args);
  visit(args.q.dtype,
        [&]<class T>() { find_importance<T>(stream, args.kName, inputs_of<T>(args, args.importance.shape[2]), args.importance.as<float>()); });
}

void top_blocks(Stream& stream, const NsaTopBlocks& args) {
  const std::int64_t tokens = args.importance.shape[0] / args.batch;
  choose(stream, args.kName, args.importance.as<float>(), args.importance.shape[2], {0, args.batch, 0, tokens}, args.query_start, args.select_block,
         tokens, args.blocks);
}

void select(Stream& stream, const NsaSelect& args) {
  check_positions(args);
  visit(args.q.dtype, [&]<class T>() {
    const std::int64_t tokens = args.q.tokens / args.batch;
    const std::int64_t blocks = (args.query_start + tokens - 1) / args.select_block + 1;
    const auto [sequences, queries] = importance_chunk(args.batch, tokens, args.num_groups, blocks);
    Tensor scratch = Tensor::empty({sequences * queries, args.num_groups, blocks}, DType::kF32, stream.device());
    ImportanceInputs<T> in = inputs_of<T>(args, blocks);
    for (std::int64_t b = 0; b < args.batch; b += sequences) {
      for (std::int64_t t = 0; t < tokens; t += queries) {
        in.range = {b, std::min(b + sequences, args.batch), t, std::min(t + queries, tokens)};
        find_importance<T>(stream, args.kName, in, scratch.as<float>());
        choose(stream, args.kName, scratch.as<float>(), blocks, in.range, args.query_start, args.select_block, tokens, args.blocks);
      }
    }
  });
}

const RegisterCuda<NsaSelect> registered{select};
const RegisterCuda<NsaImportance> registered_importance{importance_of_blocks};
const RegisterCuda<NsaTopBlocks> registered_choice{top_blocks};

}  // namespace
}  // namespace hadal::kernels::cuda
