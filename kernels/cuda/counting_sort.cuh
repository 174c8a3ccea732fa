// A stable counting sort by small keys in two launches, without the host. Every block has one stretch of the elements, every warp of a
// block one part of it. The first launch counts the elements per block and key; in the second each block adds up what lies before it,
// then its warps go through their parts in order and give out places. Counts are integers and places follow from the order of the
// elements, so the result is that of the sequential sort. A kernel that reads the places may be launched early.
#pragma once

#include <algorithm>

#include "core/tensor.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/early_launch.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kSortWarps = 16;  ///< of a block
inline constexpr int kSortThreads = kSortWarps * kWarp;
inline constexpr int kMostSortKeys = 2048;  ///< their counts lie in shared memory

struct SortSizes {
  int count;     ///< elements
  int per_warp;  ///< a multiple of 32
  int num_keys;
};

namespace counting_sort {

inline constexpr unsigned kAll = 0xffffffffu;

/// Elements [begin, end) of this warp.
struct Stretch {
  int begin, end;
};

__device__ inline Stretch own_stretch(const SortSizes& sizes) {
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kSortWarps + threadIdx.x / kWarp;
  const std::int64_t begin = warp * sizes.per_warp, last = begin + sizes.per_warp;
  return {static_cast<int>(begin < sizes.count ? begin : sizes.count), static_cast<int>(last < sizes.count ? last : sizes.count)};
}

/// Where this lane's element stands among those of its key in the warp's 32: how many come before, how many there are. All lanes call;
/// those past the end give -1.
struct Place {
  int before, count;
};

__device__ inline Place place_in_warp(int key) {
  const unsigned same = __match_any_sync(kAll, key), below = (1u << threadIdx.x % kWarp) - 1;
  return {__popc(same & below), __popc(same)};
}

/// body(element, its key) for the stretch in order, 32 at a time; all lanes call, past the end with key -1.
template <class Key, class Body>
__device__ void for_each(const Key& key_of, Stretch stretch, const Body& body) {
  constexpr int kAhead = 4;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int first = stretch.begin; first < stretch.end; first += kAhead * kWarp) {
    int key[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int element = first + i * kWarp + lane;
      key[i] = element < stretch.end ? key_of(element) : -1;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (first + i * kWarp < stretch.end) body(first + i * kWarp + lane, key[i]);
    }
  }
}

template <class Key>
__global__ void __launch_bounds__(kSortThreads) count_kernel(Key key_of, SortSizes sizes, int* block_counts) {
  extern __shared__ int counts[];  // [num_keys]
  let_next_kernel_come();
  for (int k = static_cast<int>(threadIdx.x); k < sizes.num_keys; k += kSortThreads) counts[k] = 0;
  __syncthreads();
  for_each(key_of, own_stretch(sizes), [](int, int key) {
    const Place place = place_in_warp(key);
    if (key >= 0 && place.before == 0) atomicAdd(counts + key, place.count);
  });
  __syncthreads();
  for (int k = static_cast<int>(threadIdx.x); k < sizes.num_keys; k += kSortThreads) block_counts[blockIdx.x * sizes.num_keys + k] = counts[k];
}

/// values[i] becomes the sum of those before it. `warp_sums`: [kSortWarps]. The block calls together, values are ready afterwards.
__device__ inline void exclusive_scan(int* values, int count, int* warp_sums) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int per_thread = (count + kSortThreads - 1) / kSortThreads;
  const int begin = min(thread * per_thread, count), end = min(begin + per_thread, count);
  int own = 0;
  for (int i = begin; i < end; ++i) own += values[i];
  int upto = own;
  for (int step = 1; step < kWarp; step *= 2) {
    const int lower = __shfl_up_sync(kAll, upto, step);
    if (lane >= step) upto += lower;
  }
  if (lane == kWarp - 1) warp_sums[warp] = upto;
  __syncthreads();
  int sum = upto - own;
  for (int w = 0; w < warp; ++w) sum += warp_sums[w];
  for (int i = begin; i < end; ++i) {
    const int value = values[i];
    values[i] = sum;
    sum += value;
  }
  __syncthreads();
}

template <class Key, class Emit>
__global__ void __launch_bounds__(kSortThreads) fill_kernel(Key key_of, SortSizes sizes, const int* block_counts, Emit emit, std::int64_t* offsets) {
  extern __shared__ int shared[];
  __shared__ int warp_sums[kSortWarps];
  const int num_keys = sizes.num_keys;
  int* const next = shared;                           // [kSortWarps, num_keys]: the next place of each key, for each warp
  int* const total = shared + kSortWarps * num_keys;  // [num_keys]: elements of each key, then those of lower keys
  int* const before = total + num_keys;               // [num_keys]: elements of each key in the blocks before
  const int thread = static_cast<int>(threadIdx.x), blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  let_next_kernel_come();
  for (int i = thread; i < (kSortWarps + 2) * num_keys; i += kSortThreads) shared[i] = 0;
  __syncthreads();

  int* const mine = next + thread / kWarp * num_keys;
  const Stretch stretch = own_stretch(sizes);
  for_each(key_of, stretch, [mine](int, int key) {
    const Place place = place_in_warp(key);
    if (key >= 0 && place.before == 0) mine[key] += place.count;
    __syncwarp();
  });
  // Only now are the counts needed: count_kernel is launched in the ordinary way, so that what it reads was there before.
  await_kernel_before();
  // Each thread adds up one key's counts of every slices-th block.
  const int slices = max(1, kSortThreads / num_keys);
  for (int i = thread; i < slices * num_keys; i += kSortThreads) {
    const int key = i % num_keys;
    int all = 0, earlier = 0;
#pragma unroll 16
    for (int b = i / num_keys; b < blocks; b += slices) {
      const int count = block_counts[b * num_keys + key];
      all += count;
      if (b < block) earlier += count;
    }
    atomicAdd(total + key, all);
    atomicAdd(before + key, earlier);
  }
  __syncthreads();
  exclusive_scan(total, num_keys, warp_sums);
  for (int key = thread; key < num_keys; key += kSortThreads) {
    int count[kSortWarps];
#pragma unroll
    for (int w = 0; w < kSortWarps; ++w) count[w] = next[w * num_keys + key];
    int place = total[key] + before[key];
#pragma unroll
    for (int w = 0; w < kSortWarps; ++w) {
      next[w * num_keys + key] = place;
      place += count[w];
    }
    if (block == 0 && offsets != nullptr) offsets[key] = total[key];
  }
  if (block == 0 && thread == 0 && offsets != nullptr) offsets[num_keys] = sizes.count;
  __syncthreads();

  for_each(key_of, stretch, [&](int element, int key) {
    const Place place = place_in_warp(key);
    const int to = key >= 0 ? mine[key] + place.before : 0;
    __syncwarp();
    if (key >= 0) {
      if (place.before == 0) mine[key] += place.count;
      emit(element, to);
    }
    __syncwarp();
  });
}

}  // namespace counting_sort

/// key_of(i) in [0, num_keys) of elements i in [0, count); emit(i, place) is called once for each, places rising with the key, then
/// with i. Both run on the device. offsets [num_keys + 1]: where each key's places begin; or null.
template <class Key, class Emit>
void stable_counting_sort(Stream& stream, const char* op, std::int64_t count, std::int64_t num_keys, Key key_of, Emit emit, std::int64_t* offsets) {
  constexpr std::int64_t kMost = std::int64_t{1} << 30;
  HADAL_CHECK(count <= kMost && num_keys >= 1 && num_keys <= kMostSortKeys, "{}: {} elements by {} keys", op, count, num_keys);
  // Every block reads the counts of all: at most half as many as there are multiprocessors.
  const std::int64_t most_warps = std::max(1, num_multiprocessors(stream.device().index) / 2) * std::int64_t{kSortWarps};
  const std::int64_t per_warp = std::max<std::int64_t>(1, (count + most_warps * kWarp - 1) / (most_warps * kWarp)) * kWarp;
  const std::int64_t blocks = std::max<std::int64_t>(1, (count + per_warp * kSortWarps - 1) / (per_warp * kSortWarps));
  const SortSizes sizes{static_cast<int>(count), static_cast<int>(per_warp), static_cast<int>(num_keys)};
  Tensor block_counts = Tensor::empty({blocks, num_keys}, DType::kI32, stream.device());
  const std::size_t row_bytes = static_cast<std::size_t>(num_keys) * sizeof(int), fill_bytes = (kSortWarps + 2) * row_bytes;
  allow_shared_memory(counting_sort::fill_kernel<Key, Emit>, fill_bytes, op);
  counting_sort::count_kernel<<<static_cast<unsigned>(blocks), kSortThreads, row_bytes, native(stream)>>>(key_of, sizes,
                                                                                                          block_counts.as<std::int32_t>());
  check_launch(op);
  launch_early(stream, op, counting_sort::fill_kernel<Key, Emit>, static_cast<unsigned>(blocks), kSortThreads, fill_bytes, key_of, sizes,
               block_counts.as<std::int32_t>(), emit, offsets);
}

}  // namespace hadal::kernels::cuda
