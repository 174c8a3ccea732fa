// bench_ops [--threads=N] [Google Benchmark flags]: every CPU op against this machine's measured peak.
#include <benchmark/benchmark.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/simd.h"
#include "kernels/peak.h"
#include "tests/support/blas.h"

int main(int argc, char** argv) {
  // A forced core type halves OpenBLAS; it reads the environment when it is loaded, which is later.
  for (const char* name : {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"}) unsetenv(name);
  int threads = hadal::num_threads();
  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    constexpr std::string_view kFlag = "--threads=";
    if (std::string_view(argv[i]).starts_with(kFlag)) {
      threads = std::atoi(argv[i] + kFlag.size());
    } else {
      rest.push_back(argv[i]);
    }
  }
  if (threads < 1) {
    fmt::print(stderr, "--threads=N, N >= 1\n");
    return 2;
  }
  hadal::set_num_threads(threads);
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 2;
  fmt::print(stderr, "{} threads, {}: f32 {:.0f} GFLOP/s, f64 {:.0f} GFLOP/s, copy {:.0f} GB/s; peer {}\n", threads,
             hadal::kernels::simd::name_of(hadal::kernels::simd::active_isa()),
             hadal::kernels::peak_flops(hadal::DType::kF32, threads) / 1e9,
             hadal::kernels::peak_flops(hadal::DType::kF64, threads) / 1e9, hadal::kernels::copy_bandwidth(threads) / 1e9,
             hadal::test::Blas::instance().name());
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
