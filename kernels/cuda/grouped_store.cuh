// How a warp of a grouped product writes its 16 rows of sums to memory as bf16: 64 columns at a time through buffers in shared memory, by
// the copy engine, so that the warp goes on to its next tile meanwhile; and what SwiGLU does on that way.
//
// Sums are rounded to bf16 before anything else is computed from them, as if they had been to memory: the bits are those of separate ops.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/swiglu.cuh"

namespace hadal::kernels::cuda {

using Element = __nv_bfloat16;

inline constexpr int kLine = 128;            // bytes of a line
inline constexpr int kStaging = 16 * kLine;  // bytes: 16 rows by 64 columns of bf16, or by 32 of f32
inline constexpr int kBuffers = 2;           // of a warp, of so many bytes
inline constexpr int kWholeBuffers = 4;      // of a warp whose whole tile is handed to a helper

/// A matrix of bf16 that rows are written to, and its map: boxes of 64 columns by 16 rows.
struct Output {
  const CUtensorMap* map;
  Element* data;
  int width;
};

/// The buffers of a warp, used in turn: what the copy engine takes from one goes on while the warp does something else.
class Staging {
 public:
  __device__ explicit Staging(std::uint8_t* buffers) : buffers_(buffers) {}

  /// By the whole warp: a buffer that nobody reads any more. Lane 0 then commits a group of copies from it, which may be empty.
  __device__ std::uint8_t* next() {
    if (threadIdx.x % kWarp == 0) copies_wait_read<kBuffers - 1>();
    __syncwarp();
    std::uint8_t* const buffer = buffers_ + turn_ * kStaging;
    turn_ = (turn_ + 1) % kBuffers;
    return buffer;
  }

 private:
  std::uint8_t* buffers_;
  int turn_ = 0;
};

__device__ inline std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

/// A warp's 16 rows of 64 columns, bf16, as sums are spread over lanes: packs 2 j + h hold columns 8 j + 2 (lane % 4) and the next of row
/// lane / 4 + 8 h.
using Chunk = std::uint32_t[16];

/// Chunk `index` of a warp's sums; 0 in columns behind the last.
template <int kSums>
__device__ inline void pack_chunk(Chunk& chunk, const float (&sums)[kSums], int index) {
#pragma unroll
  for (int i = 0; i < 16; ++i) chunk[i] = index * 32 + 2 * i < kSums ? pack(sums[index * 32 + 2 * i], sums[index * 32 + 2 * i + 1]) : 0;
}

__device__ inline void put_chunk(const Chunk& chunk, std::uint8_t* staging) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, matrix = lane / 8, row = matrix % 2 * 8 + lane % 8;
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    const int piece = (j + matrix / 2) ^ (row % 8);
    store_matrices(staging + row * kLine + piece * 16, chunk[2 * j], chunk[2 * j + 1], chunk[2 * j + 2], chunk[2 * j + 3]);
  }
}

__device__ inline uint4* piece_of(std::uint8_t* staging, int row, int piece) {
  return reinterpret_cast<uint4*>(staging + row * kLine + (piece ^ (row % 8)) * 16);
}

/// From there to memory, eight lanes a line of 128 bytes. `to` is the first row and column; `rows` and `columns` say how many exist.
__device__ inline void take_chunk(std::uint8_t* staging, Element* to, int row_stride, int rows, int columns) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, piece = lane % 8;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = i * 4 + lane / 8, column = piece * 8;
    if (row < rows && column < columns)
      *reinterpret_cast<uint4*>(to + static_cast<std::size_t>(row) * row_stride + column) = *piece_of(staging, row, piece);
  }
}

/// Whether the copy engine takes a chunk: all of it exists.
__device__ inline bool is_whole(int rows, int columns) { return rows >= 16 && columns >= 64; }

/// A chunk to row y, column x, by way of shared memory: by the copy engine where all of it exists, else line by line.
__device__ inline void store_chunk(const Chunk& chunk, Staging& staging, const Output& to, int x, int y, int rows, int columns) {
  std::uint8_t* const buffer = staging.next();
  put_chunk(chunk, buffer);
  const bool whole = is_whole(rows, columns);
  if (whole) fence_shared_stores();
  __syncwarp();
  if (!whole) take_chunk(buffer, to.data + static_cast<std::size_t>(y) * to.width + x, to.width, rows, columns);
  if (threadIdx.x % kWarp == 0) {
    if (whole) store_box(to.map, buffer, x, y, 0);
    copies_commit();
  }
}

/// A warp's 16 rows from row y, column x on; `rows` and `columns` say how many exist.
template <int kN>
__device__ inline void store_rows(const float (&sums)[kN / 2], Staging& staging, const Output& to, int x, int y, int rows, int columns) {
#pragma unroll
  for (int chunk = 0; chunk < (kN + 63) / 64; ++chunk) {
    Chunk packed;
    pack_chunk(packed, sums, chunk);
    store_chunk(packed, staging, to, x + chunk * 64, y, rows, min(columns, kN) - chunk * 64);
  }
}

__device__ inline float low_of(std::uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_of(std::uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/// weight silu(gate) up of two neighbours, of the rounded values.
__device__ inline std::uint32_t swiglu_pack(float weight, std::uint32_t gate, std::uint32_t up) {
  return pack(weighted_swiglu<Element>(weight, low_of(gate), low_of(up)), weighted_swiglu<Element>(weight, high_of(gate), high_of(up)));
}

// ------------------------------------------------------------------------------------------------- SwiGLU, by warps beside the products
// A multiplying warp leaves its sums in four buffers and goes on to its next tile; a helper warp reads them there. Below, `buffers` are a
// multiplying warp's; x, y: its first column and row; rows, columns: how many exist; weight: of row `lane`.

/// All chunks of a warp's sums to its buffers.
__device__ inline void put_chunks(const float (&sums)[32 * kWholeBuffers], std::uint8_t* buffers) {
#pragma unroll
  for (int chunk = 0; chunk < kWholeBuffers; ++chunk) {
    Chunk packed;
    pack_chunk(packed, sums, chunk);
    put_chunk(packed, buffers + chunk * kStaging);
  }
}

/// Chunks of gates, then of ups, to memory where they are whole; by one thread.
__device__ inline void copy_whole_gates(std::uint8_t* buffers, const Output& gate_up, int x, int y, int rows, int columns) {
#pragma unroll
  for (int chunk = 0; chunk < kWholeBuffers; ++chunk) {
    const int column = chunk % 2 * 64;
    if (is_whole(rows, columns - column)) store_box(gate_up.map, buffers + chunk * kStaging, chunk / 2 * (gate_up.width / 2) + x + column, y, 0);
  }
  copies_commit();
}

/// Of row `lane` from y on.
__device__ inline float load_weight(const float* row_weight, int y, int rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  return row_weight != nullptr && lane < min(rows, 16) ? row_weight[y + lane] : 1.0f;
}

/// h of a warp's gates and ups, and these where they are not whole.
__device__ inline void finish_swiglu(std::uint8_t* buffers, const Output& gate_up, Element* h, float weight, int x, int y, int rows, int columns) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, piece = lane % 8, width = gate_up.width / 2;
#pragma unroll 1
  for (int chunk = 0; chunk < 2; ++chunk) {
    const int column = chunk * 64 + piece * 8;
    const bool whole = is_whole(rows, columns - chunk * 64);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = i * 4 + lane / 8;
      const float of_row = __shfl_sync(0xffffffffu, weight, row);
      if (row >= rows || column >= columns) continue;
      const uint4 gate = *piece_of(buffers + chunk * kStaging, row, piece), up = *piece_of(buffers + (2 + chunk) * kStaging, row, piece);
      const std::size_t line = static_cast<std::size_t>(y + row);
      *reinterpret_cast<uint4*>(h + line * width + x + column) = make_uint4(swiglu_pack(of_row, gate.x, up.x), swiglu_pack(of_row, gate.y, up.y),
                                                                            swiglu_pack(of_row, gate.z, up.z), swiglu_pack(of_row, gate.w, up.w));
      if (whole) continue;
      Element* const to = gate_up.data + line * gate_up.width + x + column;
      *reinterpret_cast<uint4*>(to) = gate;
      *reinterpret_cast<uint4*>(to + width) = up;
    }
  }
}

}  // namespace hadal::kernels::cuda
