#include <vector>

#include "core/parallel_for.h"
#include "kernels/cpu/attention_gradients.h"
#include "kernels/cpu/attention_inputs.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"
#include "kernels/flash_attention.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using namespace cpu;

// One key head of one sequence and every parts-th query block from `part` on: d_q of those rows, and their share of d_k, d_v.
template <class T>
void backward_task(const FlashAttentionBackward& args, const AttentionInputs<T>& in, KeyGradients<T>& gradients, int64_t b,
                   int64_t kv, int64_t part, int64_t parts) {
  const Visibility visible(args.mask, in.keys);
  const auto position_of = [&](int64_t token) { return args.query_start + token; };
  const int64_t lanes = in.tiles.lanes, tiled_keys = round_up(in.keys, kKeyTile), wp = in.width_padded, vp = in.value_padded;
  const int64_t block_tokens = std::max<int64_t>(1, kBlockRows / in.group), block_rows = block_tokens * in.group;
  const int64_t num_strips = (block_rows + kStripRows - 1) / kStripRows;

  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded((in.width + in.value_width) * tiled_keys) + padded(tiled_keys * wp) + 2 * padded(block_rows * wp) +
                     padded(block_rows * vp) + 2 * padded(block_rows * kKeyTile) + 2 * padded(block_rows) +
                     KeyGradients<T>::scratch_elements(in));
  T* const keys_t = scratch.take((in.width + in.value_width) * tiled_keys);
  T* const values_t = keys_t + in.width * tiled_keys;
  T* const keys = scratch.take(tiled_keys * wp);
  T* const queries = scratch.take(block_rows * wp);
  T* const d_queries = scratch.take(block_rows * wp);
  T* const d_output = scratch.take(block_rows * vp);
  T* const p = scratch.take(block_rows * kKeyTile);
  T* const ds = scratch.take(block_rows * kKeyTile);
  T* const lse = scratch.take(block_rows);
  T* const delta = scratch.take(block_rows);
  const auto [d_keys, d_values] = gradients.start(in, scratch, b, kv, part);
  for (int64_t j0 = 0; j0 < in.keys; j0 += kKeyTile) {
    const KeyRange tile{j0, std::min(j0 + kKeyTile, in.keys)};
    in.pack_keys_transposed(b, kv, tile, keys_t + j0 * in.width, kKeyTile);
    in.pack_values_transposed(b, kv, tile, values_t + j0 * in.value_width, kKeyTile);
  }
  in.pack_keys(b, kv, {0, in.keys}, keys);
  std::vector<KeyRange> strips(static_cast<std::size_t>(num_strips));  // columns that each strip of the tile holds

  for (int64_t t0 = part * block_tokens; t0 < in.tokens; t0 += parts * block_tokens) {
    const int64_t t1 = std::min(t0 + block_tokens, in.tokens), rows = (t1 - t0) * in.group;
    in.pack_rows(in.q, b, kv, t0, t1, in.scale * kLog2E<T>, queries, wp);
    in.pack_rows(args.d_o, b, kv, t0, t1, T{1}, d_output, vp);
    row_statistics(in, args, b, kv, t0, t1, lse, delta);
    std::fill(d_queries, d_queries + rows * wp, T{0});
    const int64_t begin = visible.at(position_of(t0)).begin / kKeyTile * kKeyTile, end = visible.at(position_of(t1 - 1)).end;
    for (int64_t j0 = begin; j0 < end; j0 += kKeyTile) {
      const int64_t j1 = std::min(j0 + kKeyTile, in.keys_padded);
      for (int64_t r0 = 0; r0 < rows; r0 += kStripRows) {
        const int64_t strip = std::min(kStripRows, rows - r0);
        const auto range_of = [&](int64_t row) { return visible.at(position_of(t0 + (r0 + row) / in.group)); };
        const int64_t strip_end = std::min(range_of(strip - 1).end, j1);
        const int64_t n0 = std::max(j0, range_of(0).begin / lanes * lanes), n1 = std::min(j1, round_up(strip_end, lanes));
        strips[static_cast<std::size_t>(r0 / kStripRows)] = {n0, std::max(n0, n1)};
        T* const p_strip = p + r0 * kKeyTile;
        T* const ds_strip = ds + r0 * kKeyTile;
        for (int64_t row = 0; row < strip; ++row) {  // columns that no strip computes read as zero below
          for (T* tile : {p_strip + row * kKeyTile, ds_strip + row * kKeyTile}) {
            std::fill(tile, tile + std::min(std::max<int64_t>(n0 - j0, 0), kKeyTile), T{0});
            std::fill(tile + std::min(std::max<int64_t>(n1 - j0, 0), kKeyTile), tile + kKeyTile, T{0});
          }
        }
        if (n0 >= n1) continue;
        const int64_t n = n1 - n0, column = n0 - j0;
        in.tiles.gemm(strip, n, in.width, queries + r0 * wp, wp, keys_t + j0 * in.width + column, kKeyTile, p_strip + column,
                      kKeyTile, false);
        in.tiles.gemm(strip, n, in.value_width, d_output + r0 * vp, vp, values_t + j0 * in.value_width + column, kKeyTile,
                      ds_strip + column, kKeyTile, false);
        for (int64_t row = 0; row < strip; ++row) {
          const KeyRange range = range_of(row);
          T* const s = p_strip + row * kKeyTile + column;
          if (range.begin > n0) std::fill(s, s + std::min(range.begin - n0, n), kMasked<T>);
          if (range.end < n1) std::fill(s + std::max<int64_t>(range.end - n0, 0), s + n, kMasked<T>);
        }
        in.tiles.softmax_gradient(strip, n, p_strip + column, ds_strip + column, kKeyTile, lse + r0, delta + r0);
        in.tiles.gemm(strip, wp, strip_end - n0, ds_strip + column, kKeyTile, keys + n0 * wp, wp, d_queries + r0 * wp, wp, true);
      }
      const int64_t used_strips = (rows + kStripRows - 1) / kStripRows;
      for (int64_t c0 = j0; c0 < std::min(j1, in.keys); c0 += kStripRows) {
        const int64_t c1 = std::min({c0 + kStripRows, j1, in.keys});
        int64_t s0 = 0, s1 = used_strips;
        while (s0 < s1 && strips[static_cast<std::size_t>(s0)].end <= c0) ++s0;
        while (s1 > s0 && strips[static_cast<std::size_t>(s1 - 1)].begin >= c1) --s1;
        if (s0 == s1) continue;
        const int64_t r0 = s0 * kStripRows, depth = std::min(s1 * kStripRows, rows) - r0;
        in.tiles.gemm_ta(c1 - c0, vp, depth, p + r0 * kKeyTile + c0 - j0, kKeyTile, d_output + r0 * vp, vp, d_values + c0 * vp,
                         vp, true);
        in.tiles.gemm_ta(c1 - c0, wp, depth, ds + r0 * kKeyTile + c0 - j0, kKeyTile, queries + r0 * wp, wp, d_keys + c0 * wp, wp,
                         true);
      }
    }
    in.unpack_rows(d_queries, wp, b, kv, t0, t1, in.scale, args.d_q);
  }
  gradients.finish(in, d_keys, d_values, b, kv);
}

void backward(Stream&, const FlashAttentionBackward& args) {
  visit_float(args.q.dtype, [&]<class T>() {
    const AttentionInputs<T> in(args);
    const int64_t parts = gradient_parts(in);
    KeyGradients<T> gradients(in, parts, args);
    parallel_for(in.batch * in.key_heads * parts, [&](int64_t task) {
      backward_task<T>(args, in, gradients, task / parts / in.key_heads, task / parts % in.key_heads, task % parts, parts);
    });
    gradients.reduce(in);
  });
}

const RegisterCpu<FlashAttentionBackward> registered{backward};

}  // namespace
}  // namespace hadal::kernels
