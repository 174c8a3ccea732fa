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

// Strips of one task; see gemm.cc.
constexpr int64_t kTaskStrips = 8;

/// One product of the group, with its place in the packed buffer.
template <class T>
struct Member {
  cpu::PackedProduct<T> product;
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

/// All products in two parallel regions: packing every B, then tasks of strips over all members, the longest products first.
template <class T>
void multiply_all(std::vector<Member<T>>& members) {
  std::stable_sort(members.begin(), members.end(), [](const Member<T>& x, const Member<T>& y) {
    return x.product.m * x.product.n * x.product.k > y.product.m * y.product.n * y.product.k;
  });
  int64_t packed = 0, strips = 0;
  for (const Member<T>& member : members) {
    if (cpu::is_thin(member.product.m, member.product.transpose_a, member.transpose_b)) continue;
    packed += cpu::packed_size<T>(member.product.n, member.product.k);
    strips += member.strips.count;
  }
  Tensor buffer = Tensor::empty({packed}, kDTypeOf<T>);
  std::vector<Task> packing, products;
  const int64_t wanted = 8 * num_threads();
  const int64_t task_strips = std::clamp<int64_t>(strips / wanted, 1, kTaskStrips);
  T* to = buffer.as<T>();
  for (std::size_t i = 0; i < members.size(); ++i) {
    Member<T>& member = members[i];
    const auto& p = member.product;
    if (cpu::is_thin(p.m, p.transpose_a, member.transpose_b)) {
      products.push_back({i, 0, 0});
      continue;
    }
    member.packed = to;
    member.product.packed_b = to;
    to += cpu::packed_size<T>(p.n, p.k);
    const int64_t units = cpu::pack_units<T>(member.transpose_b, p.n, p.k);
    const int64_t pieces = member.transpose_b == Transpose::kYes ? 4 : 16;
    for (int64_t unit = 0; unit < units; unit += pieces) packing.push_back({i, unit, std::min(unit + pieces, units)});
    const int64_t count = member.strips.count;
    for (int64_t strip = 0; strip < count; strip += task_strips) {
      products.push_back({i, strip, std::min(strip + task_strips, count)});
    }
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

template <class T>
void add(std::vector<Member<T>>& members, Transpose ta, Transpose tb, int64_t m, int64_t n, int64_t k, const T* a, int64_t lda,
         const T* b, int64_t ldb, T beta, T* c) {
  if (m == 0 || n == 0 || k == 0) return;
  members.push_back({{ta, m, n, k, T{1}, a, lda, nullptr, beta, c, n}, tb, b, ldb, nullptr,
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
    multiply_all(members);
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
    multiply_all(members);
  });
}

void backward_weight(Stream&, const GroupedGemmBackwardWeight& args) {
  visit_float(args.d_w.dtype, [&]<class T>() {
    const int64_t* rows = args.offsets.as<int64_t>();
    const int64_t out = args.d_w.shape[1], in = args.d_w.shape[2];
    std::vector<Member<T>> members;
    for (int64_t e = 0; e < args.d_w.shape[0]; ++e) {
      add<T>(members, Transpose::kYes, Transpose::kNo, out, in, rows[e + 1] - rows[e], args.d_y.as<T>() + rows[e] * out, out,
             args.x.as<T>() + rows[e] * in, in, T{1}, args.d_w.as<T>() + e * out * in);
    }
    multiply_all(members);
  });
}

const RegisterCpu<GroupedGemmForward> registered_forward{forward};
const RegisterCpu<GroupedGemmBackwardInput> registered_backward_input{backward_input};
const RegisterCpu<GroupedGemmBackwardWeight> registered_backward_weight{backward_weight};

}  // namespace
}  // namespace hadal::kernels
