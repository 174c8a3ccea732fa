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

constexpr int64_t kGrainRows = 64;

// NsaSelect and NsaImportance in the shape that AttentionInputs reads; the keys stand in for the values, which selection does not
// use.
struct SelectInputs {
  template <class Args>
  explicit SelectInputs(const Args& args)
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

// Blocks 0, `own` and the one before it are always taken; then the best of blocks 0 .. own. `importance` is changed.
template <class T>
void choose(T* importance, int64_t own, int64_t n, std::vector<std::pair<T, std::int32_t>>& best, std::int32_t* to) {
  for (const int64_t forced : {int64_t{0}, own, std::max<int64_t>(own - 1, 0)}) importance[forced] = -kMasked<T>;
  top_blocks(importance, own + 1, n, best, to);
}

// Where the probability of a compressed block goes: as l <= l', to at most two selection blocks, by overlap / d.
template <class T>
struct Share {
  int64_t block;
  T here, next;
};

template <class T, class Args>
std::vector<Share<T>> shares(const Args& args, int64_t num_keys) {
  const int64_t l = args.block_length, d = args.block_stride, s = args.select_block;
  std::vector<Share<T>> result;
  for (int64_t i = 0; i < num_keys; ++i) {
    const int64_t block = i * d / s, here = std::min(i * d + l, (block + 1) * s) - i * d;
    result.push_back({block, static_cast<T>(here / d), static_cast<T>((l - here) / d)});
  }
  return result;
}

// Tokens [first, last) of sequence b, selection group `group`: probabilities of the compressed branch are recomputed strip by
// strip, summed over the group's heads, then spread over selection blocks. body(row of the op's tokens, own block, importance of
// blocks 0 .. own). Positions in the first `taken` blocks get no importance: the caller takes all their blocks.
template <class T, class Args, class Body>
void importance_task(const Args& args, const AttentionInputs<T>& in, int64_t b, int64_t group, int64_t first, int64_t last,
                     int64_t taken, const Body& body) {
  const int64_t lanes = in.tiles.lanes, wp = in.width_padded;
  const AttentionMask mask{
      .kind = AttentionMask::Kind::kBlocks, .block_length = args.block_length, .block_stride = args.block_stride};
  const Visibility visible(mask, in.keys);
  const auto end_of = [&](int64_t token) { return visible.at(args.query_start + token).end; };  // keys that it sees
  const int64_t num_keys = end_of(last - 1), ld = std::max(lanes, round_up(num_keys, lanes));
  const int64_t heads_per_group = in.heads / args.num_groups, first_head = group * heads_per_group;
  const int64_t first_kv = first_head / in.group, last_kv = (first_head + heads_per_group - 1) / in.group;
  const int64_t max_blocks = (args.query_start + last - 1) / args.select_block + 1;
  const auto padded = Scratch<T>::padded;
  Scratch<T> scratch(padded((last_kv - first_kv + 1) * in.width * ld) + padded(kStripRows * wp) + 2 * padded(kStripRows * ld) +
                     padded(max_blocks + 1));
  T* const keys_t = scratch.take_zeros((last_kv - first_kv + 1) * in.width * ld);
  T* const queries = scratch.take_zeros(kStripRows * wp);
  T* const scores = scratch.take(kStripRows * ld);
  T* const p = scratch.take(kStripRows * ld);
  T* const importance = scratch.take(max_blocks + 1);  // one more: a share of zero may go there
  for (int64_t kv = first_kv; num_keys > 0 && kv <= last_kv; ++kv) {
    in.pack_keys_transposed(b, kv, {0, num_keys}, keys_t + (kv - first_kv) * in.width * ld, ld);
  }
  const std::vector<Share<T>> share_of = shares<T>(args, num_keys);
  const T* const lse = args.lse.template as<T>();
  const auto& vector = simd::vector_ops<T>();

  for (int64_t t0 = first; t0 < last; t0 += kStripRows) {
    const int64_t t1 = std::min(t0 + kStripRows, last), rows = t1 - t0;
    const bool choice = (args.query_start + t1 - 1) / args.select_block + 1 > taken;
    const int64_t end = choice ? end_of(t1 - 1) : 0, used = round_up(end, lanes);
    std::fill(p, p + rows * ld, T{0});
    for (int64_t head = first_head; end > 0 && head < first_head + heads_per_group; ++head) {
      in.tiles.pack_rows(rows, in.width, in.at(in.q, b * in.tokens + t0, head), in.q.token_stride, in.scale * kLog2E<T>, queries,
                         wp, wp);
      in.tiles.gemm(rows, used, in.width, queries, wp, keys_t + (head / in.group - first_kv) * in.width * ld, ld, scores, ld,
                    false);
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t seen = end_of(t0 + row);
        if (seen == 0) continue;
        in.tiles.probabilities(round_up(seen, lanes), scores + row * ld,
                               lse[(b * in.tokens + t0 + row) * in.heads + head] * kLog2E<T>);
        vector.add(seen, scores + row * ld, p + row * ld);
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t own = (args.query_start + t0 + row) / args.select_block;
      std::fill(importance, importance + own + 2, T{0});
      for (int64_t i = 0, seen = std::min(end_of(t0 + row), end); i < seen; ++i) {
        const Share<T>& share = share_of[static_cast<std::size_t>(i)];
        importance[share.block] += p[row * ld + i] * share.here;
        importance[share.block + 1] += p[row * ld + i] * share.next;
      }
      body(b * in.tokens + t0 + row, own, importance);
    }
  }
}

// body(b, group, first, last) for every task: pieces of each (sequence, selection group), the longest rows first.
template <class T, class Args, class Body>
void for_each_task(const Args& args, const AttentionInputs<T>& in, const Body& body) {
  const int64_t parts = query_parts(in.batch, args.num_groups, in.tokens * (in.heads / args.num_groups));
  const int64_t part_tokens = round_up((in.tokens + parts - 1) / parts, kStripRows);
  parallel_for(in.batch * args.num_groups * parts, [&](int64_t task) {
    const int64_t first = (parts - 1 - task % parts) * part_tokens, last = std::min(first + part_tokens, in.tokens);
    if (first < last) body(task / parts / args.num_groups, task / parts % args.num_groups, first, last);
  });
}

void select(Stream&, const NsaSelect& args) {
  visit_float(args.q.dtype, [&]<class T>() {
    const AttentionInputs<T> in(SelectInputs{args});
    const int64_t n = args.blocks.shape[2];
    for_each_task(args, in, [&](int64_t b, int64_t group, int64_t first, int64_t last) {
      std::vector<std::pair<T, std::int32_t>> best;
      importance_task(args, in, b, group, first, last, n, [&](int64_t row, int64_t own, T* importance) {
        choose(importance, own, n, best, args.blocks.as<std::int32_t>() + (row * args.num_groups + group) * n);
      });
    });
  });
}

void importance_of_blocks(Stream&, const NsaImportance& args) {
  visit_float(args.q.dtype, [&]<class T>() {
    const AttentionInputs<T> in(SelectInputs{args});
    const int64_t blocks = args.importance.shape[2];
    for_each_task(args, in, [&](int64_t b, int64_t group, int64_t first, int64_t last) {
      importance_task(args, in, b, group, first, last, 0, [&](int64_t row, int64_t own, const T* importance) {
        T* const to = args.importance.as<T>() + (row * args.num_groups + group) * blocks;
        std::copy(importance, importance + own + 1, to);
        std::fill(to + own + 1, to + blocks, T{0});
      });
    });
  });
}

void choose_blocks(Stream&, const NsaTopBlocks& args) {
  visit_float(args.importance.dtype, [&]<class T>() {
    const int64_t rows = args.importance.shape[0], groups = args.importance.shape[1], blocks = args.importance.shape[2];
    const int64_t n = args.blocks.shape[2], tokens = rows / args.batch;
    parallel_ranges(rows, kGrainRows, [&](int64_t begin, int64_t end) {
      std::vector<std::pair<T, std::int32_t>> best;
      std::vector<T> importance(static_cast<std::size_t>(blocks));
      for (int64_t i = begin * groups; i < end * groups; ++i) {
        const T* const from = args.importance.as<T>() + i * blocks;
        std::copy(from, from + blocks, importance.begin());
        choose(importance.data(), (args.query_start + i / groups % tokens) / args.select_block, n, best,
               args.blocks.as<std::int32_t>() + i * n);
      }
    });
  });
}

const RegisterCpu<NsaSelect> registered{select};
const RegisterCpu<NsaImportance> registered_importance{importance_of_blocks};
const RegisterCpu<NsaTopBlocks> registered_choice{choose_blocks};

}  // namespace
}  // namespace hadal::kernels
