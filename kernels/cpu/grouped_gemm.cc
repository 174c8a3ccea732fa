#include "kernels/grouped_gemm.h"

#include <algorithm>
#include <vector>

#include "core/parallel_for.h"
#include "core/tensor.h"
#include "kernels/cpu/gemm_blocks.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/dispatch.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using cpu::Transpose;
using std::int64_t;

// Strips of one task at most; see gemm.cc.
constexpr int64_t kTaskStrips = 8;

/// One product of the group, with its place in the packed buffer.
template <class T>
struct Member {
  cpu::BlockedProduct<T> product;
  Transpose transpose_b;
  const T* b;
  int64_t ldb;
  T* packed;
  cpu::Strips strips;
};

struct Task {
  std::size_t member;
  int64_t first, last;  // units to pack, or strips
};

// Packed B of the members that are computed together. Weights are used by many rows: all at once, up to a bound on memory.
// Activations (the gradient of weights) are used once, while they still lie in the second-level caches: a bound per thread.
constexpr int64_t kWeightBytes = 32 << 20;
constexpr int64_t kActivationBytes = 1 << 20;

template <class T>
bool is_thin(const Member<T>& member) {
  return cpu::is_thin(member.product.m, member.product.transpose_a, member.transpose_b);
}

/// Elements of packed B: none when B is read as stored.
template <class T>
int64_t packed_elements(const Member<T>& member) {
  return is_thin(member) || member.product.ldb != 0 ? 0 : cpu::packed_size<T>(member.product.n, member.product.k);
}

/// Members [begin, end) in two parallel regions: packing every B, then tasks of strips over all of them.
template <class T>
void multiply_batch(std::vector<Member<T>>& members, std::size_t begin, std::size_t end, T* buffer) {
  std::vector<Task> packing, products;
  int64_t strips = 0;
  for (std::size_t i = begin; i < end; ++i) strips += members[i].strips.count;
  for (std::size_t i = begin; i < end; ++i) {
    Member<T>& member = members[i];
    const auto& p = member.product;
    if (is_thin(member)) {
      products.push_back({i, 0, 0});
      continue;
    }
    if (p.ldb == 0) {
      member.product.b = member.packed = buffer;
      buffer += packed_elements(member);
      const int64_t units = cpu::pack_units<T>(member.transpose_b, p.n, p.k);
      const cpu::Pieces parts(units, 2 * num_threads(), units);
      for (int64_t part = 0; part < parts.count; ++part) packing.push_back({i, parts.begin(part), parts.begin(part + 1)});
    }
    const int64_t share = 8 * num_threads() * member.strips.count / strips;
    const cpu::Pieces pieces(member.strips.count, num_threads() == 1 ? 1 : std::max<int64_t>(share, 1), kTaskStrips);
    for (int64_t piece = 0; piece < pieces.count; ++piece) products.push_back({i, pieces.begin(piece), pieces.begin(piece + 1)});
  }
  parallel_for(static_cast<int64_t>(packing.size()), [&](int64_t index) {
    const Task& task = packing[static_cast<std::size_t>(index)];
    const Member<T>& member = members[task.member];
    cpu::pack_part(member.transpose_b, member.product.n, member.product.k, member.b, member.ldb, member.packed, task.first,
                   task.last);
  });
  parallel_for(static_cast<int64_t>(products.size()), [&](int64_t index) {
    const Task& task = products[static_cast<std::size_t>(index)];
    const Member<T>& member = members[task.member];
    const auto& p = member.product;
    if (task.last == 0) {
      cpu::multiply_thin(p.transpose_a, member.transpose_b, p.m, p.n, p.k, p.alpha, p.a, p.lda, member.b, member.ldb, p.beta, p.c,
                         p.ldc);
    } else {
      cpu::multiply_block(p, member.strips, task.first, task.last, 0, cpu::panel_count<T>(p.n));
    }
  });
}

/// All products, in batches of at most `bytes` of packed B.
template <class T>
void multiply_all(std::vector<Member<T>>& members, int64_t bytes) {
  const int64_t limit = bytes / static_cast<int64_t>(sizeof(T));
  std::vector<std::size_t> ends;
  int64_t batch = 0, largest = 0;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const int64_t size = packed_elements(members[i]);
    if (batch > 0 && batch + size > limit) {
      ends.push_back(i);
      batch = 0;
    }
    batch += size;
    largest = std::max(largest, batch);
  }
  ends.push_back(members.size());
  Tensor buffer = Tensor::empty({largest}, kDTypeOf<T>);
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    multiply_batch(members, begin, end, buffer.as<T>());
    begin = end;
  }
}

template <class T>
void add(std::vector<Member<T>>& members, Transpose ta, Transpose tb, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda,
         const T* b, int64_t ldb, T beta, T* c) {
  if (m == 0 || n == 0 || k == 0) return;
  const bool stored = cpu::reads_stored<T>(ta, tb, m, n, ldb);
  members.push_back({{ta, m, n, k, T{1}, a, lda, stored ? b : nullptr, beta, c, n, stored ? ldb : 0},
                     tb,
                     b,
                     ldb,
                     nullptr,
                     cpu::Strips(m, simd::gemm_micro<T>().rows)});
}

void forward(Stream&, const GroupedGemmForward& args) {
  visit_float(args.y.dtype, [&]<class T>() {
    const int64_t* rows = args.offsets.as<int64_t>();
    const int64_t out = args.w.shape[1], in = args.w.shape[2];
    std::vector<Member<T>> members;
    for (int64_t e = 0; e < args.w.shape[0]; ++e) {
      add<T>(members, Transpose::kNo, Transpose::kYes, rows[e + 1] - rows[e], out, in, args.x.as<T>() + rows[e] * in, in,
             args.w.as<T>() + e * out * in, in, T{0}, args.y.as<T>() + rows[e] * out);
    }
    multiply_all(members, kWeightBytes);
  });
}

void backward_input(Stream&, const GroupedGemmBackwardInput& args) {
  visit_float(args.d_x.dtype, [&]<class T>() {
    const int64_t* rows = args.offsets.as<int64_t>();
    const int64_t out = args.w.shape[1], in = args.w.shape[2];
    std::vector<Member<T>> members;
    for (int64_t e = 0; e < args.w.shape[0]; ++e) {
      add<T>(members, Transpose::kNo, Transpose::kNo, rows[e + 1] - rows[e], in, out, args.d_y.as<T>() + rows[e] * out, out,
             args.w.as<T>() + e * out * in, in, T{0}, args.d_x.as<T>() + rows[e] * in);
    }
    multiply_all(members, kWeightBytes);
  });
}

void backward_weight(Stream&, const GroupedGemmBackwardWeight& args) {
  visit_float(args.d_w.dtype, [&]<class T>() {
    const int64_t* rows = args.offsets.as<int64_t>();
    const int64_t out = args.d_w.shape[1], in = args.d_w.shape[2];
    std::vector<Member<T>> members;
    for (int64_t e = 0; e < args.d_w.shape[0]; ++e) {
      T* const d_w = args.d_w.as<T>() + e * out * in;
      if (!args.add && rows[e] == rows[e + 1]) std::fill_n(d_w, out * in, T{0});
      add<T>(members, Transpose::kYes, Transpose::kNo, out, in, rows[e + 1] - rows[e], args.d_y.as<T>() + rows[e] * out, out,
             args.x.as<T>() + rows[e] * in, in, args.add ? T{1} : T{0}, d_w);
    }
    multiply_all(members, kActivationBytes * num_threads());
  });
}

const RegisterCpu<GroupedGemmForward> registered_forward{forward};
const RegisterCpu<GroupedGemmBackwardInput> registered_backward_input{backward_input};
const RegisterCpu<GroupedGemmBackwardWeight> registered_backward_weight{backward_weight};

}  // namespace
}  // namespace hadal::kernels
