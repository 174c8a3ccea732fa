#include "kernels/flash_attention.h"

#include "core/parallel_for.h"
#include "kernels/cpu/attention_inputs.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/dispatch.h"
#include "kernels/op.h"

HADAL_SIMD_PICK(AttentionTiles, attention_tiles)

namespace hadal::kernels {
namespace {

using namespace cpu;

// One key head of one sequence, tokens [first, last): packs the keys they see, then walks query blocks x key tiles, strip by
// strip with the online softmax. Tiles above the diagonal or left of the window are never touched.
template <class T>
void forward_task(const FlashAttentionForward& args, const AttentionInputs<T>& in, int64_t b, int64_t kv, int64_t first,
                  int64_t last) {
  const Visibility visible(args.mask, in.keys);
  const auto position_of = [&](int64_t token) { return args.query_start + token; };
  const int64_t lanes = in.tiles.lanes;
  const int64_t block_tokens = std::max<int64_t>(1, kBlockRows / in.group), block_rows = block_tokens * in.group;
  const KeyRange keys{visible.at(position_of(first)).begin / kKeyTile * kKeyTile, visible.at(position_of(last - 1)).end};
  const int64_t num_keys = std::max<int64_t>(keys.end - keys.begin, 0), tiled_keys = round_up(num_keys, kKeyTile);

  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded(in.width * tiled_keys) + padded(tiled_keys * in.value_padded) + padded(block_rows * in.width_padded) +
                     padded(block_rows * in.value_padded) + padded(kStripRows * kKeyTile) + 2 * padded(block_rows + kStripRows));
  T* const keys_t = scratch.take(in.width * tiled_keys);
  T* const values = scratch.take(tiled_keys * in.value_padded);
  T* const queries = scratch.take(block_rows * in.width_padded);
  T* const output = scratch.take(block_rows * in.value_padded);
  T* const scores = scratch.take(kStripRows * kKeyTile);
  T* const row_max = scratch.take(block_rows + kStripRows);
  T* const row_sum = scratch.take(block_rows + kStripRows);
  for (int64_t j0 = keys.begin; j0 < keys.end; j0 += kKeyTile) {  // tile by tile, so that one is a contiguous block
    const KeyRange tile{j0, std::min(j0 + kKeyTile, keys.end)};
    in.pack_keys_transposed(b, kv, tile, keys_t + (j0 - keys.begin) * in.width, kKeyTile);
    in.pack_values(b, kv, tile, values + (j0 - keys.begin) * in.value_padded);
  }

  for (int64_t t0 = first; t0 < last; t0 += block_tokens) {
    const int64_t t1 = std::min(t0 + block_tokens, last), rows = (t1 - t0) * in.group;
    in.pack_rows(in.q, b, kv, t0, t1, in.scale * kLog2E<T>, queries, in.width_padded);
    std::fill(output, output + rows * in.value_padded, T{0});
    std::fill(row_max, row_max + rows, kMasked<T>);
    std::fill(row_sum, row_sum + rows, T{0});
    const KeyRange block{visible.at(position_of(t0)).begin, visible.at(position_of(t1 - 1)).end};
    for (int64_t j0 = block.begin / kKeyTile * kKeyTile; j0 < block.end; j0 += kKeyTile) {
      const int64_t j1 = std::min(j0 + kKeyTile, keys.begin + round_up(num_keys, lanes));
      for (int64_t r0 = 0; r0 < rows; r0 += kStripRows) {
        const int64_t strip = std::min(kStripRows, rows - r0);
        const auto range_of = [&](int64_t row) { return visible.at(position_of(t0 + (r0 + row) / in.group)); };
        const int64_t end = std::min(range_of(strip - 1).end, j1);
        const int64_t n0 = std::max(j0, range_of(0).begin / lanes * lanes), n1 = std::min(j1, round_up(end, lanes));
        if (n0 >= n1) continue;
        const int64_t n = n1 - n0;
        in.tiles.gemm(strip, n, in.width, queries + r0 * in.width_padded, in.width_padded,
                      keys_t + (j0 - keys.begin) * in.width + n0 - j0, kKeyTile, scores, kKeyTile, false);
        for (int64_t row = 0; row < strip; ++row) {
          const KeyRange range = range_of(row);
          T* const s = scores + row * kKeyTile;
          if (range.begin > n0) std::fill(s, s + std::min(range.begin - n0, n), kMasked<T>);
          if (range.end < n1) std::fill(s + std::max<int64_t>(range.end - n0, 0), s + n, kMasked<T>);
        }
        in.tiles.softmax(strip, n, scores, kKeyTile, row_max + r0, row_sum + r0, output + r0 * in.value_padded, in.value_padded,
                         in.value_padded);
        in.tiles.gemm(strip, in.value_padded, end - n0, scores, kKeyTile, values + (n0 - keys.begin) * in.value_padded,
                      in.value_padded, output + r0 * in.value_padded, in.value_padded, true);
      }
    }
    finish_rows(in, b, kv, t0, t1, row_max, row_sum, output, args.lse.as<T>(), args.o);
  }
}

// At most one strip of rows (decoding): keys and values are read once, where they lie.
template <class T>
void few_rows_task(const FlashAttentionForward& args, const AttentionInputs<T>& in, int64_t b, int64_t kv) {
  const Visibility visible(args.mask, in.keys);
  const int64_t rows = in.tokens * in.group, wp = in.width_padded, vp = in.value_padded;
  const KeyRange keys{visible.at(args.query_start).begin, visible.at(args.query_start + in.tokens - 1).end};
  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded(kStripRows * wp) + padded(kStripRows * vp) + padded(kStripRows * kKeyTile) + padded(kKeyTile * vp));
  T* const queries = scratch.take(kStripRows * wp);
  T* const output = scratch.take_zeros(kStripRows * vp);
  T* const scores = scratch.take(kStripRows * kKeyTile);
  T* const values = scratch.take(kKeyTile * vp);
  T row_max[kStripRows], row_sum[kStripRows] = {};
  std::fill(row_max, row_max + kStripRows, kMasked<T>);
  in.pack_rows(in.q, b, kv, 0, in.tokens, in.scale * kLog2E<T>, queries, wp);
  for (int64_t j0 = keys.begin; j0 < keys.end; j0 += kKeyTile) {
    const int64_t j1 = std::min(j0 + kKeyTile, keys.end), count = j1 - j0, n = round_up(count, in.tiles.lanes);
    in.tiles.scores(rows, count, in.key_width, queries, wp, in.at(in.k, b * in.keys + j0, kv), in.k.token_stride, scores,
                    kKeyTile, false);
    if (in.shared_width > 0) {
      in.tiles.scores(rows, count, in.shared_width, queries + in.key_width, wp, in.at(in.k_shared, b * in.keys + j0, 0),
                      in.k_shared.token_stride, scores, kKeyTile, true);
    }
    for (int64_t row = 0; row < rows; ++row) {
      const KeyRange range = visible.at(args.query_start + row / in.group);
      T* const s = scores + row * kKeyTile;
      std::fill(s, s + std::clamp<int64_t>(range.begin - j0, 0, n), kMasked<T>);
      std::fill(s + std::clamp<int64_t>(range.end - j0, 0, count), s + n, kMasked<T>);
    }
    in.tiles.softmax(rows, n, scores, kKeyTile, row_max, row_sum, output, vp, vp);
    const bool in_place = vp == in.value_width;
    if (!in_place) in.pack_values(b, kv, {j0, j1}, values);
    in.tiles.gemm(rows, vp, count, scores, kKeyTile, in_place ? in.at(in.v, b * in.keys + j0, kv) : values,
                  in_place ? in.v.token_stride : vp, output, vp, true);
  }
  finish_rows(in, b, kv, 0, in.tokens, row_max, row_sum, output, args.lse.as<T>(), args.o);
}

void forward(Stream&, const FlashAttentionForward& args) {
  visit_float(args.q.dtype, [&]<class T>() {
    const AttentionInputs<T> in(args);
    if (in.tokens * in.group <= kStripRows) {
      parallel_for(in.batch * in.key_heads,
                   [&](int64_t task) { few_rows_task<T>(args, in, task / in.key_heads, task % in.key_heads); });
      return;
    }
    const int64_t parts = query_parts(in.batch, in.key_heads, in.tokens * in.group);
    const int64_t part_tokens = (in.tokens + parts - 1) / parts;
    parallel_for(in.batch * in.key_heads * parts, [&](int64_t task) {
      const int64_t first = (parts - 1 - task % parts) * part_tokens;  // the longest rows first
      const int64_t last = std::min(first + part_tokens, in.tokens);
      if (first < last) forward_task<T>(args, in, task / parts / in.key_heads, task / parts % in.key_heads, first, last);
    });
  });
}

const RegisterCpu<FlashAttentionForward> registered{forward};

}  // namespace
}  // namespace hadal::kernels
