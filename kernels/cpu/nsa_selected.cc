// Attention over selected blocks. A strip of eight (token, head of the group) rows gathers the union of its blocks into one score
// buffer and masks per row: with eight heads a group nothing is wasted, and with one head a group neighbours share most blocks.
#include "core/parallel_for.h"
#include "kernels/cpu/attention_gradients.h"
#include "kernels/cpu/attention_inputs.h"
#include "kernels/cpu/selected_blocks.h"
#include "kernels/dispatch.h"
#include "kernels/nsa.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using namespace cpu;

constexpr int64_t kColumns = SelectedBlocks::kColumns;

template <class Args>
SelectedBlocks blocks_of(const Args& args, int64_t keys, int64_t lanes) {
  return {args.blocks.template as<std::int32_t>(), args.blocks.shape[1], args.blocks.shape[2], args.select_block, keys, lanes};
}

// Fills the strip of rows [r0, r0 + rows) of tokens t0.. of sequence b, key head kv.
template <class T, class Args>
const std::vector<std::vector<KeyPiece>>& strip_pieces(const Args& args, const AttentionInputs<T>& in, SelectedBlocks& blocks,
                                                       int64_t b, int64_t kv, int64_t r0, int64_t rows, int64_t query_start) {
  const int64_t heads_per_group = in.heads / args.blocks.shape[1];
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t t = (r0 + row) / in.group, head = kv * in.group + (r0 + row) % in.group;
    blocks.set_row(row, b * in.tokens + t, head / heads_per_group, query_start + t);
  }
  return blocks.pieces(rows);
}

template <class T>
void forward_task(const NsaSelectedForward& args, const AttentionInputs<T>& in, int64_t b, int64_t kv, int64_t first,
                  int64_t last) {
  const int64_t lanes = in.tiles.lanes, wp = in.width_padded, vp = in.value_padded;
  const KeyRange keys{0, std::min(in.keys, args.query_start + last)};
  const int64_t ld_keys = round_up(keys.end, lanes) + lanes;  // a piece may be read past its end
  const int64_t block_tokens = std::max<int64_t>(1, kBlockRows / in.group), block_rows = block_tokens * in.group;
  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded(in.width * ld_keys) + padded(ld_keys * vp) + padded(block_rows * wp) + padded(block_rows * vp) +
                     padded(kStripRows * kColumns));
  T* const keys_t = scratch.take_zeros(in.width * ld_keys);
  T* const values = scratch.take_zeros(ld_keys * vp);
  T* const queries = scratch.take_zeros(block_rows * wp);
  T* const output = scratch.take(block_rows * vp);
  T* const scores = scratch.take(kStripRows * kColumns);
  in.pack_keys_transposed(b, kv, keys, keys_t, ld_keys);
  in.pack_values(b, kv, keys, values);
  SelectedBlocks blocks = blocks_of(args, in.keys, lanes);

  for (int64_t t0 = first; t0 < last; t0 += block_tokens) {
    const int64_t t1 = std::min(t0 + block_tokens, last), rows = (t1 - t0) * in.group;
    in.pack_rows(in.q, b, kv, t0, t1, in.scale * kLog2E<T>, queries, wp);
    std::fill(output, output + rows * vp, T{0});
    for (int64_t r0 = 0; r0 < rows; r0 += kStripRows) {
      const int64_t strip = std::min(kStripRows, rows - r0);
      T row_max[kStripRows], row_sum[kStripRows];
      std::fill(row_max, row_max + strip, kMasked<T>);
      std::fill(row_sum, row_sum + strip, T{0});
      T* const out = output + r0 * vp;
      for (const auto& batch : strip_pieces(args, in, blocks, b, kv, t0 * in.group + r0, strip, args.query_start)) {
        for (const KeyPiece& piece : batch) {
          in.tiles.gemm(strip, round_up(piece.count, lanes), in.width, queries + r0 * wp, wp, keys_t + piece.begin, ld_keys,
                        scores + piece.column, kColumns, false);
          for (int64_t row = 0; row < strip; ++row) blocks.mask(row, piece, scores + row * kColumns + piece.column);
        }
        const int64_t n = batch.back().column + round_up(batch.back().count, lanes);
        in.tiles.softmax(strip, n, scores, kColumns, row_max, row_sum, out, vp, vp);
        for (const KeyPiece& piece : batch) {
          in.tiles.gemm(strip, vp, piece.count, scores + piece.column, kColumns, values + piece.begin * vp, vp, out, vp, true);
        }
      }
      T* const lse = args.lse.as<T>() + b * in.tokens * in.heads + kv * in.group;
      for (int64_t row = 0; row < strip; ++row) {
        const int64_t index = t0 * in.group + r0 + row;
        const bool none = row_max[row] == kMasked<T>;
        lse[index / in.group * in.heads + index % in.group] =
            none ? kMasked<T> : row_max[row] * kLn2<T> + std::log(row_sum[row]);
        const T inverse = none ? T{0} : T{1} / row_sum[row];
        for (int64_t c = 0; c < in.value_width; ++c) out[row * vp + c] *= inverse;
      }
    }
    in.unpack_rows(output, vp, b, kv, t0, t1, T{1}, args.o);
  }
}

template <class T>
void backward_task(const NsaSelectedBackward& args, const AttentionInputs<T>& in, KeyGradients<T>& gradients, int64_t b,
                   int64_t kv, int64_t part, int64_t parts) {
  const int64_t lanes = in.tiles.lanes, wp = in.width_padded, vp = in.value_padded, ld_keys = in.keys_padded + lanes;
  const int64_t block_tokens = std::max<int64_t>(1, kBlockRows / in.group), block_rows = block_tokens * in.group;
  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded((in.width + in.value_width) * ld_keys) + padded(ld_keys * wp) + 2 * padded(block_rows * wp) +
                     padded(block_rows * vp) + 2 * padded(kStripRows * kColumns) + 2 * padded(block_rows) +
                     KeyGradients<T>::scratch_elements(in));
  T* const keys_t = scratch.take_zeros((in.width + in.value_width) * ld_keys);
  T* const values_t = keys_t + in.width * ld_keys;
  T* const keys = scratch.take_zeros(ld_keys * wp);
  T* const queries = scratch.take_zeros(block_rows * wp);
  T* const d_queries = scratch.take(block_rows * wp);
  T* const d_output = scratch.take_zeros(block_rows * vp);
  T* const p = scratch.take(kStripRows * kColumns);
  T* const ds = scratch.take(kStripRows * kColumns);
  T* const lse = scratch.take(block_rows);
  T* const delta = scratch.take(block_rows);
  const auto [d_keys, d_values] = gradients.start(in, scratch, b, kv, part);
  in.pack_keys_transposed(b, kv, {0, in.keys}, keys_t, ld_keys);
  in.pack_values_transposed(b, kv, {0, in.keys}, values_t, ld_keys);
  in.pack_keys(b, kv, {0, in.keys}, keys);
  SelectedBlocks blocks = blocks_of(args, in.keys, lanes);

  for (int64_t t0 = part * block_tokens; t0 < in.tokens; t0 += parts * block_tokens) {
    const int64_t t1 = std::min(t0 + block_tokens, in.tokens), rows = (t1 - t0) * in.group;
    in.pack_rows(in.q, b, kv, t0, t1, in.scale * kLog2E<T>, queries, wp);
    in.pack_rows(args.d_o, b, kv, t0, t1, T{1}, d_output, vp);
    row_statistics(in, args, b, kv, t0, t1, lse, delta);
    std::fill(d_queries, d_queries + rows * wp, T{0});
    for (int64_t r0 = 0; r0 < rows; r0 += kStripRows) {
      const int64_t strip = std::min(kStripRows, rows - r0);
      const T* const q_strip = queries + r0 * wp;
      const T* const do_strip = d_output + r0 * vp;
      for (const auto& batch : strip_pieces(args, in, blocks, b, kv, t0 * in.group + r0, strip, 0)) {
        for (const KeyPiece& piece : batch) {
          const int64_t n = round_up(piece.count, lanes);
          in.tiles.gemm(strip, n, in.width, q_strip, wp, keys_t + piece.begin, ld_keys, p + piece.column, kColumns, false);
          in.tiles.gemm(strip, n, in.value_width, do_strip, vp, values_t + piece.begin, ld_keys, ds + piece.column, kColumns, false);
          for (int64_t row = 0; row < strip; ++row) blocks.mask(row, piece, p + row * kColumns + piece.column);
        }
        const int64_t n = batch.back().column + round_up(batch.back().count, lanes);
        in.tiles.softmax_gradient(strip, n, p, ds, kColumns, lse + r0, delta + r0);
        for (const KeyPiece& piece : batch) {
          const T* const p_piece = p + piece.column;
          const T* const ds_piece = ds + piece.column;
          in.tiles.gemm(strip, wp, piece.count, ds_piece, kColumns, keys + piece.begin * wp, wp, d_queries + r0 * wp, wp, true);
          in.tiles.gemm_ta(piece.count, vp, strip, p_piece, kColumns, do_strip, vp, d_values + piece.begin * vp, vp, true);
          in.tiles.gemm_ta(piece.count, wp, strip, ds_piece, kColumns, q_strip, wp, d_keys + piece.begin * wp, wp, true);
        }
      }
    }
    in.unpack_rows(d_queries, wp, b, kv, t0, t1, in.scale, args.d_q);
  }
  gradients.finish(in, d_keys, d_values, b, kv);
}

void forward(Stream&, const NsaSelectedForward& args) {
  visit_float(args.q.dtype, [&]<class T>() {
    const AttentionInputs<T> in(args);
    const int64_t parts = query_parts(in.batch, in.key_heads, in.tokens * in.group);
    const int64_t part_tokens = (in.tokens + parts - 1) / parts;
    parallel_for(in.batch * in.key_heads * parts, [&](int64_t task) {
      const int64_t first = (parts - 1 - task % parts) * part_tokens;
      const int64_t last = std::min(first + part_tokens, in.tokens);
      if (first < last) forward_task<T>(args, in, task / parts / in.key_heads, task / parts % in.key_heads, first, last);
    });
  });
}

void backward(Stream&, const NsaSelectedBackward& args) {
  visit_float(args.q.dtype, [&]<class T>() {
    const AttentionInputs<T> in(args);
    const int64_t parts = query_parts(in.batch, in.key_heads, in.tokens * in.group);
    KeyGradients<T> gradients(in, parts, args.d_k, args.d_k_shared, args.d_v);
    parallel_for(in.batch * in.key_heads * parts, [&](int64_t task) {
      backward_task<T>(args, in, gradients, task / parts / in.key_heads, task / parts % in.key_heads, task % parts, parts);
    });
    gradients.reduce(in);
  });
}

const RegisterCpu<NsaSelectedForward> registered_forward{forward};
const RegisterCpu<NsaSelectedBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels
