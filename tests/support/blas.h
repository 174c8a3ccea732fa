// OpenBLAS, cross-check and named peer of the matrix product, loaded at run time when the machine has it.
#pragma once

#include <cstdint>
#include <string>

namespace hadal::test {

class Blas {
 public:
  /// The library with its own choice of kernels: it reads OPENBLAS_* of the environment when it is loaded.
  static const Blas& instance();

  bool found() const { return sgemm_ != nullptr; }
  /// "OpenBLAS 0.3.21 ... Cooperlake".
  std::string name() const;
  void set_threads(int count) const;
  void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda, const float* b,
            std::int64_t ldb, float beta, float* c, std::int64_t ldc) const;
  void gemm(bool ta, bool tb, std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda, const double* b,
            std::int64_t ldb, double beta, double* c, std::int64_t ldc) const;

 private:
  Blas();
  template <class T>
  using Function = void (*)(int order, int ta, int tb, int m, int n, int k, T alpha, const T* a, int lda, const T* b, int ldb,
                            T beta, T* c, int ldc);
  Function<float> sgemm_ = nullptr;
  Function<double> dgemm_ = nullptr;
  char* (*config_)() = nullptr;
  char* (*core_)() = nullptr;
  void (*set_threads_)(int) = nullptr;
};

}  // namespace hadal::test
