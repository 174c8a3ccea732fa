#include "train/device_peak.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

#include "core/convert.h"
#include "core/copy.h"
#include "core/parallel_for.h"
#include "core/rng.h"
#include "kernels/gemm.h"
#include "kernels/peak.h"

namespace hadal::train {
namespace {

// Products grow until one takes long enough for its start not to count.
constexpr std::int64_t kFirstSize = 512, kLastSize = 8192;
constexpr double kLongEnough = 1e-3;
constexpr int kRounds = 8;

/// [n, n] of normal values: constants would let the device run faster than real numbers do. One block of values, repeated.
Tensor normal_matrix(Stream& stream, std::int64_t n, DType dtype, std::uint64_t seed) {
  const std::int64_t block = std::min(n * n, kFirstSize * kFirstSize);
  Tensor values = Tensor::empty({block}, DType::kF32), rounded = Tensor::empty({block}, dtype);
  const Random random(seed, RandomPurpose::kSynthetic);
  for (std::int64_t i = 0; i < block; ++i) values.as<float>()[i] = static_cast<float>(random.normal(static_cast<std::uint64_t>(i)));
  convert_floats(values, rounded);
  Tensor matrix = Tensor::empty({n, n}, dtype, stream.device());
  const View flat = matrix.view().reshape({n * n});
  for (std::int64_t begin = 0; begin < n * n; begin += block) copy(stream, rounded, flat.rows(begin, begin + block));
  return matrix;
}

/// Seconds of one product [n, n] x [n, n]^T.
double product_seconds(Stream& stream, std::int64_t n, DType dtype) {
  const Tensor a = normal_matrix(stream, n, dtype, 1), b = normal_matrix(stream, n, dtype, 2);
  Tensor c = Tensor::empty({n, n}, dtype, stream.device());
  double best = 0;
  for (int round = 0; round <= kRounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    run(stream, kernels::Gemm{.a = a, .b = b, .c = c, .transpose_b = true});
    synchronize(stream);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    // The first one chooses and loads its kernel.
    if (round > 0) best = round == 1 ? seconds : std::min(best, seconds);
  }
  return best;
}

double measure(Storage storage) {
  Stream stream = stream_of(storage.device);
  double best = 0;
  for (std::int64_t n = kFirstSize; n <= kLastSize; n *= 2) {
    const double seconds = product_seconds(stream, n, storage.dtype);
    best = std::max(best, 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds);
    if (seconds > kLongEnough) break;
  }
  trim(storage.device);
  return best;
}

}  // namespace

double peak_flops(Storage storage) {
  if (storage.device.is_cpu()) return kernels::peak_flops(storage.dtype, num_threads());
  static std::mutex mutex;
  static std::map<std::pair<int, DType>, double> measured;
  const std::scoped_lock lock(mutex);
  const auto [place, is_new] = measured.try_emplace({storage.device.index, storage.dtype}, 0.0);
  if (is_new) place->second = measure(storage);
  return place->second;
}

}  // namespace hadal::train
