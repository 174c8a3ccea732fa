// Attention over selected blocks, block by block: a block's keys are packed once and meet the rows that selected it, gathered
// into dense tiles, so nothing is computed that the mask would drop. A row's softmax state goes on from block to block.
#include "core/parallel_for.h"
#include "kernels/cpu/attention_gradients.h"
#include "kernels/cpu/attention_inputs.h"
#include "kernels/cpu/block_lists.h"
#include "kernels/dispatch.h"
#include "kernels/nsa.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using namespace cpu;

// Puts -inf behind the position of each gathered row, padding included; scores [rows, ld], keys [begin, begin + count).
template <class T>
void mask_future(const std::int32_t* row_of, int64_t rows, int64_t group, int64_t first_position, int64_t begin, int64_t count,
                 T* scores, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t seen = std::min(first_position + row_of[i] / group - begin + 1, count);
    if (seen < ld) std::fill(scores + i * ld + seen, scores + (i + 1) * ld, kMasked<T>);
  }
}

template <class T>
void forward_task(const NsaSelectedForward& args, const AttentionInputs<T>& in, int64_t b, int64_t kv, int64_t first,
                  int64_t last) {
  const int64_t wp = in.width_padded, vp = in.value_padded, rows = (last - first) * in.group;
  const int64_t ld = round_up(args.select_block, in.tiles.lanes);
  const BlockLists lists(args, in, args.query_start, b, kv, first, last);
  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded(rows * wp) + padded(rows * vp) + 2 * padded(rows) + padded(in.width * ld) + padded(ld * vp) +
                     padded(kStripRows * wp) + padded(kStripRows * vp) + padded(kStripRows * ld));
  T* const queries = scratch.take(rows * wp);
  T* const output = scratch.take_zeros(rows * vp);
  T* const row_max = scratch.take(rows);
  T* const row_sum = scratch.take_zeros(rows);
  T* const keys_t = scratch.take(in.width * ld);
  T* const values = scratch.take(ld * vp);
  T* const q = scratch.take(kStripRows * wp);
  T* const o = scratch.take(kStripRows * vp);
  T* const scores = scratch.take(kStripRows * ld);
  in.pack_rows(in.q, b, kv, first, last, in.scale * kLog2E<T>, queries, wp);
  std::fill(row_max, row_max + rows, kMasked<T>);

  for (int64_t block = 0; block < lists.num_blocks(); ++block) {
    const int64_t begin = block * args.select_block, count = std::min(args.select_block, in.keys - begin);
    if (lists.count(block) == 0) continue;
    const int64_t n = round_up(count, in.tiles.lanes);
    in.pack_keys_transposed(b, kv, {begin, begin + count}, keys_t, ld);
    in.pack_values(b, kv, {begin, begin + count}, values);
    for (int64_t i = 0; i < lists.count(block); i += kStripRows) {
      const std::int32_t* const row_of = lists.rows(block) + i;
      const int64_t strip = std::min(kStripRows, lists.count(block) - i);
      T strip_max[kStripRows] = {}, strip_sum[kStripRows] = {};
      in.tiles.gather(strip, row_of, wp, queries, q);
      in.tiles.gather(strip, row_of, vp, output, o);
      for (int64_t row = 0; row < strip; ++row) {
        strip_max[row] = row_max[row_of[row]];
        strip_sum[row] = row_sum[row_of[row]];
      }
      in.tiles.gemm(strip, n, in.width, q, wp, keys_t, ld, scores, n, false);
      mask_future(row_of, strip, in.group, args.query_start + first, begin, count, scores, n);
      in.tiles.softmax(strip, n, scores, n, strip_max, strip_sum, o, vp, vp);
      in.tiles.gemm(strip, vp, count, scores, n, values, vp, o, vp, true);
      in.tiles.scatter(strip, row_of, vp, o, output);
      for (int64_t row = 0; row < strip; ++row) {
        row_max[row_of[row]] = strip_max[row];
        row_sum[row_of[row]] = strip_sum[row];
      }
    }
  }
  finish_rows(in, b, kv, first, last, row_max, row_sum, output, args.lse.as<T>(), args.o);
}

template <class T>
void backward_task(const NsaSelectedBackward& args, const AttentionInputs<T>& in, KeyGradients<T>& gradients, int64_t b,
                   int64_t kv, int64_t part, int64_t parts) {
  const int64_t wp = in.width_padded, vp = in.value_padded, part_tokens = (in.tokens + parts - 1) / parts;
  const int64_t first = std::min(part * part_tokens, in.tokens), last = std::min(first + part_tokens, in.tokens);
  const int64_t rows = (last - first) * in.group, ld = round_up(args.select_block, in.tiles.lanes);
  const BlockLists lists(args, in, args.query_start, b, kv, first, last);
  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(2 * padded(rows * wp) + padded(rows * vp) + 2 * padded(rows) + padded((in.width + in.value_width) * ld) +
                     padded(ld * wp) + 2 * padded(kBlockRows * wp) + padded(kBlockRows * vp) + 2 * padded(kBlockRows * ld) +
                     2 * padded(kBlockRows) + KeyGradients<T>::scratch_elements(in));
  T* const queries = scratch.take(rows * wp);
  T* const d_queries = scratch.take_zeros(rows * wp);
  T* const d_output = scratch.take(rows * vp);
  T* const row_lse = scratch.take(rows);
  T* const row_delta = scratch.take(rows);
  T* const keys_t = scratch.take((in.width + in.value_width) * ld);
  T* const values_t = keys_t + in.width * ld;
  T* const keys = scratch.take(ld * wp);
  T* const q = scratch.take(kBlockRows * wp);
  T* const d_q = scratch.take(kBlockRows * wp);
  T* const d_o = scratch.take(kBlockRows * vp);
  T* const p = scratch.take(kBlockRows * ld);
  T* const ds = scratch.take(kBlockRows * ld);
  T* const lse = scratch.take(kBlockRows);
  T* const delta = scratch.take(kBlockRows);
  const auto [d_keys, d_values] = gradients.start(in, scratch, b, kv, part);
  in.pack_rows(in.q, b, kv, first, last, in.scale * kLog2E<T>, queries, wp);
  in.pack_rows(args.d_o, b, kv, first, last, T{1}, d_output, vp);
  row_statistics(in, args, b, kv, first, last, row_lse, row_delta);

  for (int64_t block = 0; block < lists.num_blocks(); ++block) {
    const int64_t begin = block * args.select_block, count = std::min(args.select_block, in.keys - begin);
    if (lists.count(block) == 0) continue;
    const int64_t n = round_up(count, in.tiles.lanes);
    in.pack_keys_transposed(b, kv, {begin, begin + count}, keys_t, ld);
    in.pack_values_transposed(b, kv, {begin, begin + count}, values_t, ld);
    in.pack_keys(b, kv, {begin, begin + count}, keys);
    for (int64_t i = 0; i < lists.count(block); i += kBlockRows) {
      const std::int32_t* const row_of = lists.rows(block) + i;
      const int64_t size = std::min(kBlockRows, lists.count(block) - i);
      in.tiles.gather(size, row_of, wp, queries, q);
      in.tiles.gather(size, row_of, vp, d_output, d_o);
      for (int64_t row = 0; row < size; ++row) {
        lse[row] = row_lse[row_of[row]];
        delta[row] = row_delta[row_of[row]];
      }
      in.tiles.gemm(size, n, in.width, q, wp, keys_t, ld, p, n, false);
      in.tiles.gemm(size, n, in.value_width, d_o, vp, values_t, ld, ds, n, false);
      mask_future(row_of, size, in.group, args.query_start + first, begin, count, p, n);
      in.tiles.softmax_gradient(size, n, p, ds, n, lse, delta);
      in.tiles.gemm(size, wp, count, ds, n, keys, wp, d_q, wp, false);
      in.tiles.scatter_add(size, row_of, wp, d_q, d_queries);
      in.tiles.gemm_ta(count, vp, size, p, n, d_o, vp, d_values + begin * vp, vp, true);
      in.tiles.gemm_ta(count, wp, size, ds, n, q, wp, d_keys + begin * wp, wp, true);
    }
  }
  in.unpack_rows(d_queries, wp, b, kv, first, last, in.scale, args.d_q);
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
    const int64_t parts = gradient_parts(in);
    KeyGradients<T> gradients(in, parts, args);
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
