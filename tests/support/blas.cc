#include "tests/support/blas.h"

#include <dlfcn.h>

namespace hadal::test {
namespace {

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

// The numbers of the CBLAS interface.
constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112;

}  // namespace

Blas::Blas() {
  void* library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return;
  find(library, "cblas_sgemm", sgemm_);
  find(library, "cblas_dgemm", dgemm_);
  find(library, "openblas_get_config", config_);
  find(library, "openblas_get_corename", core_);
  find(library, "openblas_set_num_threads", set_threads_);
}

const Blas& Blas::instance() {
  static const Blas blas;
  return blas;
}

std::string Blas::name() const {
  if (!found()) return "OpenBLAS not found";
  return std::string(config_ != nullptr ? config_() : "OpenBLAS") + " kernels " + (core_ != nullptr ? core_() : "unknown");
}

void Blas::set_threads(int count) const {
  if (set_threads_ != nullptr) set_threads_(count);
}

void Blas::gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
                const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) const {
  sgemm_(kRowMajor, ta ? kTranspose : kNoTranspose, tb ? kTranspose : kNoTranspose, static_cast<int>(m), static_cast<int>(n),
         static_cast<int>(k), 1, a, static_cast<int>(lda), b, static_cast<int>(ldb), beta, c, static_cast<int>(ldc));
}

void Blas::gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda,
                const double* b, std::int64_t ldb, double beta, double* c, std::int64_t ldc) const {
  dgemm_(kRowMajor, ta ? kTranspose : kNoTranspose, tb ? kTranspose : kNoTranspose, static_cast<int>(m), static_cast<int>(n),
         static_cast<int>(k), 1, a, static_cast<int>(lda), b, static_cast<int>(ldb), beta, c, static_cast<int>(ldc));
}

}  // namespace hadal::test
