// Matrix products of a small MLA + MoE model: forward (NT), gradient of the input (NN), of the weight (TN), beside OpenBLAS.
// of_peak is the share of the measured peak, vs_blas our rate over OpenBLAS's, both best of several rounds taken in turn.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>
#include <vector>

#include "bench.h"
#include "kernels/gemm.h"
#include "tests/support/blas.h"

namespace hadal::bench {
namespace {

struct Form {
  const char* name;
  bool ta, tb;
};
constexpr Form kForms[] = {{"forward", false, true}, {"input", false, false}, {"weight", true, false}};

/// Best seconds of one call: rounds of a few milliseconds, each warmed by one call.
template <class Body>
double best_seconds(double flops, const Body& body) {
  const int calls = std::max(1, static_cast<int>(3e-3 * 2e11 * num_threads() / flops));
  body();
  double best = 1e30;
  for (int i = 0; i < calls; ++i) {
    const double start = seconds_now();
    body();
    best = std::min(best, seconds_now() - start);
  }
  return best;
}

/// tokens x in -> out as a layer's product; the same operands for both libraries.
template <class T>
void product(benchmark::State& state, std::int64_t tokens, std::int64_t in, std::int64_t out, Form form) {
  const std::int64_t m = form.ta ? out : tokens, k = form.ta ? tokens : (form.tb ? in : out), n = form.tb ? out : in;
  const Tensor a = filled<T>(form.ta ? Shape{k, m} : Shape{m, k}, 1), b = filled<T>(form.tb ? Shape{n, k} : Shape{k, n}, 2);
  Tensor c = Tensor::zeros({m, n}, kDTypeOf<T>);
  const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double beta = form.ta ? 1 : 0;
  const test::Blas& blas = test::Blas::instance();
  blas.set_threads(num_threads());
  Stream stream;
  const kernels::Gemm args{.a = a, .b = b, .c = c, .transpose_a = form.ta, .transpose_b = form.tb, .beta = beta};
  double own = 1e30, peer = 1e30;
  for (auto unused : state) {
    (void)unused;
    own = std::min(own, best_seconds(flops, [&] { run(stream, args); }));
    state.SetIterationTime(own);
    if (!blas.found()) continue;
    peer = std::min(peer, best_seconds(flops, [&] {
                      blas.gemm(form.ta, form.tb, m, n, k, a.as<T>(), a.shape()[1], b.as<T>(), b.shape()[1], static_cast<T>(beta),
                                c.as<T>(), n);
                    }));
    // Its threads spin for a while before they sleep.
    if (num_threads() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  report_flops(state, kDTypeOf<T>, flops, own);
  if (blas.found()) state.counters["vs_blas"] = peer / own;
}

template <class T>
void add(const char* kind, std::int64_t tokens, std::int64_t in, std::int64_t out, int rounds = 5) {
  for (const Form& form : kForms) {
    const std::string name = fmt::format("gemm/{}/{}/{}/{}x{}x{}", name_of(kDTypeOf<T>), kind, form.name, tokens, in, out);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { product<T>(state, tokens, in, out, form); })
        ->UseManualTime()
        ->Iterations(rounds)
        ->Unit(benchmark::kMicrosecond);
  }
}

const bool registered = [] {
  for (const auto& [in, out] :
       {std::pair{256, 128}, {128, 384}, {256, 80}, {64, 512}, {256, 256}, {256, 1536}, {768, 256}, {256, 512}, {1024, 1024}}) {
    add<float>("dense", 4096, in, out);
  }
  for (const int rows : {32, 64, 512, 1024}) {
    add<float>("expert", rows, 256, 512);
    add<float>("expert", rows, 256, 256);
  }
  add<float>("head", 4096, 256, 8192, 3);
  add<float>("router", 4096, 256, 8);
  add<float>("square", 512, 512, 512);
  add<double>("dense", 4096, 256, 256);
  add<double>("expert", 512, 256, 512);
  return true;
}();

}  // namespace
}  // namespace hadal::bench
