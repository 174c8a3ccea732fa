#include <utility>
#include <vector>

#include "core/parallel_for.h"
#include "kernels/cpu/attention_inputs.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"
#include "kernels/nsa.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using namespace cpu;

// NsaSelect in the shape that AttentionInputs reads; the keys stand in for the values, which selection does not use.
struct SelectInputs {
  explicit SelectInputs(const NsaSelect& args)
      : batch(args.batch), q(args.q), k(args.k), k_shared(args.k_shared), v(args.k), scale(args.scale) {}
  int64_t batch;
  ConstHeads q, k, k_shared, v;
  double scale;
};

// The n best of `count` blocks in ascending order, padded with -1; equal values go to the lower block.
template <class T>
void top_blocks(const T* value, int64_t count, int64_t n, std::vector<std::pair<T, std::int32_t>>& best, std::int32_t* to) {
  if (count <= n) {
    for (int64_t j = 0; j < n; ++j) to[j] = j < count ? static_cast<std::int32_t>(j) : -1;
    return;
  }
  best.clear();
  for (int64_t j = 0; j < count; ++j) {
    const bool full = static_cast<int64_t>(best.size()) == n;
    if (full && !(value[j] > best.back().first)) continue;
    if (full) best.pop_back();
    auto place = best.end();
    while (place != best.begin() && value[j] > (place - 1)->first) --place;
    best.insert(place, {value[j], static_cast<std::int32_t>(j)});
  }
  for (int64_t i = 0; i < n; ++i) to[i] = best[static_cast<std::size_t>(i)].second;
  std::sort(to, to + n);
}

// importance[j] += p[i] * overlap(block i, selection block j) / d over the blocks i that a token sees.
template <class T>
void spread(const NsaSelect& args, const T* p, int64_t visible, int64_t count, T* importance) {
  const int64_t l = args.block_length, d = args.block_stride, s = args.select_block;
  for (int64_t i = 0; i < visible; ++i) {
    const int64_t begin = i * d, end = begin + l;
    for (int64_t j = begin / s; j < count && j * s < end; ++j) {
      const int64_t overlap = std::min(end, (j + 1) * s) - std::max(begin, j * s);
      importance[j] += p[i] * static_cast<T>(overlap / d);
    }
  }
}

// Tokens [first, last) of sequence b, selection group `group`: probabilities of the compressed branch are recomputed strip by
// strip, summed over the group's heads, then spread over selection blocks.
template <class T>
void select_task(const NsaSelect& args, const AttentionInputs<T>& in, int64_t b, int64_t group, int64_t first, int64_t last) {
  const int64_t lanes = in.tiles.lanes, wp = in.width_padded, n = args.blocks.shape[2];
  const Visibility visible({.kind = AttentionMask::Kind::kBlocks, .block_length = args.block_length, .block_stride = args.block_stride},
                           in.keys);
  const int64_t num_keys = visible.at(args.query_start + last - 1).end, ld = std::max(lanes, round_up(num_keys, lanes));
  const int64_t heads_per_group = in.heads / args.num_groups, first_head = group * heads_per_group;
  const int64_t first_kv = first_head / in.group, last_kv = (first_head + heads_per_group - 1) / in.group;
  const int64_t max_blocks = (args.query_start + last - 1) / args.select_block + 1;
  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded((last_kv - first_kv + 1) * in.width * ld) + padded(kStripRows * wp) + 2 * padded(kStripRows * ld) +
                     padded(max_blocks));
  T* const keys_t = scratch.take_zeros((last_kv - first_kv + 1) * in.width * ld);
  T* const queries = scratch.take_zeros(kStripRows * wp);
  T* const scores = scratch.take(kStripRows * ld);
  T* const p = scratch.take(kStripRows * ld);
  T* const importance = scratch.take(max_blocks);
  for (int64_t kv = first_kv; num_keys > 0 && kv <= last_kv; ++kv) {
    in.pack_keys_transposed(b, kv, {0, num_keys}, keys_t + (kv - first_kv) * in.width * ld, ld);
  }
  std::vector<std::pair<T, std::int32_t>> best;
  const T* const lse = args.lse.as<T>();
  const auto& vector = simd::vector_ops<T>();

  for (int64_t t0 = first; t0 < last; t0 += kStripRows) {
    const int64_t t1 = std::min(t0 + kStripRows, last), rows = t1 - t0;
    const int64_t end = visible.at(args.query_start + t1 - 1).end, used = round_up(end, lanes);
    std::fill(p, p + rows * ld, T{0});
    for (int64_t head = first_head; end > 0 && head < first_head + heads_per_group; ++head) {
      in.tiles.pack_rows(rows, in.width, in.at(in.q, b * in.tokens + t0, head), in.q.token_stride, in.scale * kLog2E<T>, queries, wp,
                         wp);
      in.tiles.gemm(rows, used, in.width, queries, wp, keys_t + (head / in.group - first_kv) * in.width * ld, ld, scores, ld, false);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t seen = visible.at(args.query_start + t0 + row).end;
        if (seen == 0) continue;
        in.tiles.probabilities(round_up(seen, lanes), scores + row * ld, lse[(b * in.tokens + t0 + row) * in.heads + head] * kLog2E<T>);
        vector.add(seen, scores + row * ld, p + row * ld);
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t position = args.query_start + t0 + row, own = position / args.select_block, count = own + 1;
      std::fill(importance, importance + count, T{0});
      spread(args, p + row * ld, visible.at(position).end, count, importance);
      for (const int64_t forced : {int64_t{0}, own, std::max<int64_t>(own - 1, 0)}) importance[forced] = -kMasked<T>;
      std::int32_t* const to = args.blocks.as<std::int32_t>() + ((b * in.tokens + t0 + row) * args.num_groups + group) * n;
      top_blocks(importance, count, n, best, to);
    }
  }
}

void select(Stream&, const NsaSelect& args) {
  visit_float(args.q.dtype, [&]<class T>() {
    const AttentionInputs<T> in(SelectInputs{args});
    const int64_t parts = query_parts(in.batch, args.num_groups, in.tokens * (in.heads / args.num_groups));
    const int64_t part_tokens = round_up((in.tokens + parts - 1) / parts, kStripRows);
    parallel_for(in.batch * args.num_groups * parts, [&](int64_t task) {
      const int64_t first = (parts - 1 - task % parts) * part_tokens, last = std::min(first + part_tokens, in.tokens);
      if (first < last) select_task<T>(args, in, task / parts / args.num_groups, task / parts % args.num_groups, first, last);
    });
  });
}

const RegisterCpu<NsaSelect> registered{select};

}  // namespace
}  // namespace hadal::kernels
