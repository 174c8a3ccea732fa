#include "gpu_bench.h"

#include <cuda_runtime.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

#include "core/device_backend.h"
#include "core/rng.h"
#include "kernels/adamw.h"
#include "kernels/gemm.h"

namespace hadal::bench {
namespace {

constexpr int kWarmUp = 3, kLeastRuns = 20, kMostRuns = 200;
constexpr double kSeconds = 0.25;                                                            ///< of runs per row
constexpr std::int64_t kSweep = std::int64_t{256} << 20, kTurns = std::int64_t{512} << 20;  ///< bytes: many times the L2 cache
constexpr int kMostCalls = 64, kLead = 4;  ///< in one time of turns; sweeps before it, in which the host gets ahead
constexpr double kRowMs = 2;               ///< of one such time

struct Bench {
  const char* name;
  BenchBody body;
};
std::vector<Bench>& benches() {
  static std::vector<Bench> list;
  return list;
}

void check(cudaError_t status, const char* call) { HADAL_CHECK(status == cudaSuccess, "{}: {}", call, cudaGetErrorString(status)); }

}  // namespace

RegisterBench::RegisterBench(const char* name, BenchBody body) { benches().push_back({name, body}); }

namespace {

/// Fills the cache with what nobody needs, and leaves nothing in it that must be written.
class Sweep {
 public:
  explicit Sweep(Stream& stream)
      : stream_(stream), from_(Tensor::zeros({kSweep / 4}, DType::kF32, kGpu)), sum_(Tensor::zeros({1}, DType::kF64, kGpu)) {}
  void operator()() { run(stream_, kernels::SumSquares{.x = from_, .result = sum_}); }

 private:
  Stream& stream_;
  Tensor from_, sum_;
};

/// Median over the runs of the milliseconds from the end of before() to that of body().
double median_ms(Stream& stream, const std::function<void()>& before, const std::function<void()>& body) {
  const auto queue = static_cast<cudaStream_t>(stream.native());
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> times;
  const auto start = std::chrono::steady_clock::now();
  while (static_cast<int>(times.size()) < kLeastRuns ||
         (static_cast<int>(times.size()) < kMostRuns && std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < kSeconds)) {
    before();
    check(cudaEventRecord(begin, queue), "cudaEventRecord");
    body();
    check(cudaEventRecord(end, queue), "cudaEventRecord");
    check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    times.push_back(ms);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
  return times[times.size() / 2];
}

}  // namespace

double time_ms(Stream& stream, const std::function<void()>& body) {
  for (int i = 0; i < kWarmUp; ++i) body();
  Sweep sweep(stream);
  return median_ms(stream, std::ref(sweep), body);
}

int turns_for(double bytes) { return static_cast<int>(std::clamp(std::ceil(static_cast<double>(kTurns) / bytes), 1.0, double{kMostCalls})); }

Copies::Copies(Tensor first, int turns) {
  tensors_.push_back(std::move(first));
  while (static_cast<int>(tensors_.size()) < turns) tensors_.push_back(tensors_[0].clone());
}

double time_turns_ms(Stream& stream, int turns, const std::function<void(int)>& body) {
  for (int i = 0; i < std::max(kWarmUp, turns); ++i) body(i % turns);
  Sweep sweep(stream);
  const auto lead = [&] {
    for (int i = 0; i < kLead; ++i) sweep();
  };
  const auto row_of = [&](int calls) {
    return [&body, calls, turns] {
      for (int i = 0; i < calls; ++i) body(i % turns);
    };
  };
  const auto calls = static_cast<int>(std::clamp(kRowMs / time_ms(stream, row_of(1)), 1.0, double{kMostCalls}));
  const int rows = (calls + turns - 1) / turns * turns;
  return median_ms(stream, lead, row_of(rows)) / rows;
}

Tensor random_tensor(Stream& stream, Shape shape, DType dtype, std::uint64_t seed, double std) {
  // A period of random values, repeated: drawing billions on the host would take longer than the bench.
  constexpr std::int64_t kPeriod = (1 << 18) + 37;
  const Random random(seed, RandomPurpose::kInit, 2);
  Tensor host = Tensor::empty(shape, dtype);
  const std::int64_t drawn = std::min(kPeriod, shape.numel());
  for (std::int64_t i = 0; i < drawn; ++i) {
    const float x = static_cast<float>(std * random.normal(static_cast<std::uint64_t>(i)));
    if (dtype == DType::kBf16) {
      host.as<Bf16>()[i] = to_bf16(x);
    } else {
      host.as<float>()[i] = x;
    }
  }
  auto* const bytes = static_cast<char*>(host.view().data);
  const auto period = static_cast<std::size_t>(drawn) * size_of(dtype), all = static_cast<std::size_t>(host.bytes());
  for (std::size_t at = period; at < all; at += period) std::memcpy(bytes + at, bytes, std::min(period, all - at));
  return to_device(stream, host, kGpu);
}

Table::Table(Stream& stream) : stream_(stream) {
  constexpr std::int64_t kSize = 8192, kBytes = std::int64_t{2} << 30;
  {
    const Tensor a = random_tensor(stream, {kSize, kSize}, DType::kBf16, 1), b = random_tensor(stream, {kSize, kSize}, DType::kBf16, 2);
    Tensor c = Tensor::empty({kSize, kSize}, DType::kBf16, kGpu);
    const double ms = time_ms(stream, [&] { run(stream, kernels::Gemm{.a = a, .b = b, .c = c, .transpose_b = true}); });
    peak_tflops_ = 2.0 * kSize * kSize * kSize / ms / 1e9;
  }
  {
    Tensor from = Tensor::zeros({kBytes}, DType::kU8, kGpu), to = Tensor::empty({kBytes}, DType::kU8, kGpu);
    const double ms = time_turns_ms(stream, 1, [&](int) { copy(stream, from, to); });
    copy_gbs_ = 2.0 * kBytes / ms / 1e6;
  }
  trim(kGpu);
}

void Table::add_flops(const std::string& name, const std::string& shape, double ms, double flops) {
  const double tflops = flops / ms / 1e9;
  add({name, shape, ms, tflops, tflops / peak_tflops_, true});
}

void Table::add_bytes(const std::string& name, const std::string& shape, double ms, double bytes) {
  const double gbs = bytes / ms / 1e6;
  add({name, shape, ms, gbs, gbs / copy_gbs_, false});
}

void Table::add(Row row) {
  // At once, so that a bench that dies later has told what it measured.
  fmt::print("{:<34} {:<40} {:>9.3f} ms {:>8.1f} {} {:>5.1f} % of {}\n", row.name, row.shape, row.ms, row.rate, row.is_flops ? "TFLOP/s" : "GB/s   ",
             100 * row.fraction, row.is_flops ? "peak" : "copy");
  std::fflush(stdout);
  rows_.push_back(std::move(row));
}

void Table::print() const { fmt::print("measured ceilings: {:.0f} TFLOP/s bf16, {:.0f} GB/s copy\n", peak_tflops_, copy_gbs_); }

void Table::write_json(const std::string& path) const {
  std::FILE* file = std::fopen(path.c_str(), "w");
  HADAL_CHECK(file != nullptr, "{} cannot be written", path);
  fmt::print(file, "{{\"name\": \"ceilings\", \"tflops\": {:.2f}, \"gbs\": {:.1f}}}\n", peak_tflops_, copy_gbs_);
  for (const Row& row : rows_) {
    fmt::print(file, "{{\"name\": \"{}\", \"shape\": \"{}\", \"ms\": {:.5f}, \"{}\": {:.2f}, \"fraction\": {:.4f}}}\n", row.name, row.shape, row.ms,
               row.is_flops ? "tflops" : "gbs", row.rate, row.fraction);
  }
  std::fclose(file);
}

}  // namespace hadal::bench

int main(int argc, char** argv) {
  using namespace hadal;
  if (num_cuda_devices() == 0) {
    std::puts("no CUDA device here");
    return 77;
  }
  const std::string only = argc > 1 ? argv[1] : "";
  Stream stream = stream_of(bench::kGpu);
  bench::Table table(stream);
  table.print();
  int failed = 0;
  for (const auto& [name, body] : bench::benches()) {
    if (std::string(name).find(only) == std::string::npos) continue;
    try {
      body(table);
    } catch (const std::exception& error) {
      fmt::print("{}: {}\n", name, error.what());
      failed = 1;
    }
    trim(bench::kGpu);
  }
  if (argc > 2) table.write_json(argv[2]);
  return failed;
}
