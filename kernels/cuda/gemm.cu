// Dense products through cuBLASLt. Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T: operands change places, and each
// keeps its transposition, since a row-major matrix read as column-major is its transpose.
//
// The algorithm is the first that the library's heuristic gives for (shape, forms, dtypes, leading dimensions, alignment of the
// pointers): a pure function of these, asked once and kept. Sums that are split over k are put together in f32, in a fixed order, in
// a workspace that belongs to one stream.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <mutex>

#include "core/allocator.h"
#include "core/log.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/cuda_scratch.h"
#include "kernels/gemm.h"
#include "kernels/op.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

void check(cublasStatus_t status, const char* call, const Gemm& args) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ExitCode::kIo, fmt::format("cuBLASLt: {}: {} for gemm a {}{} {} ld {}, b {}{} ld {}, c {} {} ld {}, rank {}", call, cublasLtGetStatusString(status),
                                         args.a.shape.str(), args.transpose_a ? "^T" : "", name_of(args.a.dtype), args.lda, args.b.shape.str(),
                                         args.transpose_b ? "^T" : "", args.ldb, args.c.shape.str(), name_of(args.c.dtype), args.ldc, log_rank()));
}

/// What the choice of an algorithm depends on.
struct Key {
  int64_t m, n, k, lda, ldb, ldc;
  std::array<std::uint32_t, 3> alignments;  // of a, b, c, in bytes
  bool transpose_a, transpose_b;
  DType dtype, out;
  auto operator<=>(const Key&) const = default;
};

/// The library's objects for one key; they live as long as the program.
struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

std::uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer) | 256u;
  return static_cast<std::uint32_t>(address & (~address + 1));
}

cudaDataType_t library_type(DType dtype) {
  HADAL_CHECK(dtype == DType::kF32 || dtype == DType::kBf16, "gemm of {} on CUDA, where f32 and bf16 are computed", name_of(dtype));
  return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// A row-major matrix [rows, columns], told to the library as the column-major [columns, rows] that it is.
cublasLtMatrixLayout_t layout_of(DType dtype, const Shape& shape, int64_t ld, const Gemm& args) {
  cublasLtMatrixLayout_t layout = nullptr;
  check(cublasLtMatrixLayoutCreate(&layout, library_type(dtype), static_cast<std::uint64_t>(shape[1]), static_cast<std::uint64_t>(shape[0]), ld),
        "cublasLtMatrixLayoutCreate", args);
  return layout;
}

Plan make_plan(cublasLtHandle_t handle, const Key& key, const Gemm& args) {
  Plan plan;
  // f32 in full: no TF32, no emulation by bf16.
  check(cublasLtMatmulDescCreate(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate", args);
  const cublasOperation_t first = key.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, second = key.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof(first)), "transposition of b", args);
  check(cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof(second)), "transposition of a", args);
  plan.a = layout_of(key.dtype, args.a.shape, key.lda, args);
  plan.b = layout_of(key.dtype, args.b.shape, key.ldb, args);
  plan.c = layout_of(key.out, args.c.shape, key.ldc, args);

  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", args);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof(value)), "cublasLtMatmulPreferenceSetAttribute", args);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kGemmWorkspaceBytes});
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignments[1]);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignments[0]);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignments[2]);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignments[2]);
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, plan.product, plan.b, plan.a, plan.c, plan.c, preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status == CUBLAS_STATUS_SUCCESS && found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status, "cublasLtMatmulAlgoGetHeuristic", args);
  plan.algorithm = result.algo;
  return plan;
}

/// One device's handle, plans, and a workspace for each of its streams.
struct Library {
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
  std::map<void*, void*> workspaces;
};

struct Prepared {
  cublasLtHandle_t handle;
  const Plan* plan;  // nodes of a map stay where they are
  void* workspace;
};

Prepared prepare(const Stream& stream, const Key& key, const Gemm& args) {
  // Leaked on purpose, as the runtime's own state is.
  static auto* const mutex = new std::mutex;
  static auto* const libraries = new std::map<int, Library>;
  const std::scoped_lock lock(*mutex);
  Library& library = (*libraries)[stream.device().index];
  if (library.handle == nullptr) check(cublasLtCreate(&library.handle), "cublasLtCreate", args);
  auto plan = library.plans.find(key);
  if (plan == library.plans.end()) plan = library.plans.emplace(key, make_plan(library.handle, key, args)).first;
  void*& workspace = library.workspaces[stream.native()];
  if (workspace == nullptr) workspace = allocate(stream.device(), kGemmWorkspaceBytes);
  return {library.handle, &plan->second, workspace};
}

/// c *= beta: what a sum over no terms leaves.
template <class T>
__global__ void scale(T* c, int64_t rows, int64_t columns, int64_t ld, float beta) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * columns) return;
  T& at = c[i / columns * ld + i % columns];
  at = from_float<T>(beta == 0.0f ? 0.0f : beta * to_float(at));
}

void scale(Stream& stream, const Gemm& args, int64_t ld) {
  constexpr int kThreads = 256;
  const auto blocks = static_cast<unsigned>((args.c.numel() + kThreads - 1) / kThreads);
  visit(args.c.dtype, [&]<class T>() {
    scale<T><<<blocks, kThreads, 0, native(stream)>>>(static_cast<T*>(args.c.data), args.c.shape[0], args.c.shape[1], ld, static_cast<float>(args.beta));
  });
  check_launch("gemm");
}

void gemm(Stream& stream, const Gemm& args) {
  const int64_t k = args.a.shape[args.transpose_a ? 0 : 1], ldc = args.ldc != 0 ? args.ldc : args.c.shape[1];
  if (k == 0) return scale(stream, args, ldc);
  const Key key{args.c.shape[0],
                args.c.shape[1],
                k,
                args.lda != 0 ? args.lda : args.a.shape[1],
                args.ldb != 0 ? args.ldb : args.b.shape[1],
                ldc,
                {alignment_of(args.a.data), alignment_of(args.b.data), alignment_of(args.c.data)},
                args.transpose_a,
                args.transpose_b,
                args.a.dtype,
                args.c.dtype};
  const Prepared ready = prepare(stream, key, args);
  const auto alpha = static_cast<float>(args.alpha), beta = static_cast<float>(args.beta);
  const Plan& plan = *ready.plan;
  check(cublasLtMatmul(ready.handle, plan.product, &alpha, args.b.data, plan.b, args.a.data, plan.a, &beta, args.c.data, plan.c, args.c.data, plan.c,
                       &plan.algorithm, ready.workspace, kGemmWorkspaceBytes, native(stream)),
        "cublasLtMatmul", args);
}

const RegisterCuda<Gemm> registered{gemm};

}  // namespace
}  // namespace hadal::kernels::cuda
