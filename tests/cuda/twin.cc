#include "tests/cuda/twin.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "core/rng.h"

namespace hadal::test {
namespace {

constexpr std::size_t kGuard = 1024;
constexpr std::byte kPattern{0xa5};

bool is_float(DType dtype) { return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBf16; }

/// f64 <-> what lies on the device.
Tensor converted(ConstView from, DType to) {
  Tensor result = Tensor::empty(from.shape, to);
  for (std::int64_t i = 0; i < from.numel(); ++i) {
    const double x = from.dtype == DType::kF64   ? static_cast<const double*>(from.data)[i]
                     : from.dtype == DType::kF32 ? static_cast<double>(static_cast<const float*>(from.data)[i])
                                                 : static_cast<double>(to_float(static_cast<const Bf16*>(from.data)[i]));
    if (to == DType::kF64) {
      result.as<double>()[i] = x;
    } else if (to == DType::kF32) {
      result.as<float>()[i] = static_cast<float>(x);
    } else {
      result.as<Bf16>()[i] = to_bf16(static_cast<float>(x));
    }
  }
  return result;
}

std::vector<std::byte> bytes_of(ConstView device) {
  Stream stream = stream_of(kGpu);
  const Tensor host = to_host(stream, device);
  std::vector<std::byte> bytes(device.bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), host.view().data, bytes.size());
  return bytes;
}

}  // namespace

Twin::Twin(Tensor host, DType dtype) : host_(std::move(host)), dtype_(dtype) {
  HADAL_CHECK(is_float(dtype) ? host_.dtype() == DType::kF64 : host_.dtype() == dtype, "a twin of {} and {}", name_of(host_.dtype()),
              name_of(dtype));
  const std::size_t bytes = static_cast<std::size_t>(host_.numel()) * size_of(dtype);
  storage_ = Tensor::empty({static_cast<std::int64_t>(bytes + 2 * kGuard)}, DType::kU8, kGpu);
  device_ = {static_cast<std::byte*>(storage_.view().data) + kGuard, dtype, host_.shape(), kGpu};
  poison_guards();
  Stream stream = stream_of(kGpu);
  if (is_float(dtype)) {
    const Tensor rounded = converted(host_, dtype);
    host_ = converted(rounded, DType::kF64);
    copy(stream, rounded, device_);
  } else {
    copy(stream, host_, device_);
  }
}

Twin Twin::normal(Shape shape, DType dtype, std::uint64_t seed, double std) {
  Tensor host = Tensor::empty(shape, DType::kF64);
  const Random random(seed, RandomPurpose::kInit, 1);
  for (std::int64_t i = 0; i < host.numel(); ++i) host.as<double>()[i] = std * random.normal(static_cast<std::uint64_t>(i));
  return {std::move(host), dtype};
}

Twin Twin::output(Shape shape, DType dtype) {
  Tensor host = Tensor::zeros(shape, is_float(dtype) ? DType::kF64 : dtype);
  if (is_float(dtype)) {
    for (double& x : host.span<double>()) x = std::numeric_limits<double>::quiet_NaN();
  } else {
    std::memset(host.view().data, 0x5a, host.bytes());
  }
  return {std::move(host), dtype};
}

Twin Twin::zeros(Shape shape, DType dtype) { return {Tensor::zeros(shape, is_float(dtype) ? DType::kF64 : dtype), dtype}; }

Twin Twin::ints(Shape shape, const std::vector<std::int64_t>& values, DType dtype) {
  Tensor host = Tensor::empty(shape, dtype);
  HADAL_CHECK_EQ(static_cast<std::int64_t>(values.size()), host.numel());
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kI64) {
      host.as<std::int64_t>()[i] = values[i];
    } else {
      host.as<std::int32_t>()[i] = static_cast<std::int32_t>(values[i]);
    }
  }
  return {std::move(host), dtype};
}

Tensor Twin::downloaded() {
  Stream stream = stream_of(kGpu);
  Tensor host = to_host(stream, device_);
  return is_float(dtype_) ? converted(host, DType::kF64) : std::move(host);
}

double Twin::error() {
  const Tensor got = downloaded();
  double largest = 0, difference = 0;
  for (std::int64_t i = 0; i < host_.numel(); ++i) {
    const double want = host_.as<double>()[i], have = got.as<double>()[i];
    if (std::isnan(want) && std::isnan(have)) continue;
    if (want == have) continue;
    if (!std::isfinite(want) || !std::isfinite(have)) return std::numeric_limits<double>::infinity();
    difference = std::max(difference, std::abs(want - have));
  }
  for (const double want : host_.span<double>()) {
    if (std::isfinite(want)) largest = std::max(largest, std::abs(want));
  }
  return largest > 0 ? difference / largest : difference;
}

::testing::AssertionResult Twin::agrees(double tolerance) {
  const double err = error();
  if (err <= tolerance) return ::testing::AssertionSuccess();
  const Tensor got = downloaded();
  std::int64_t at = 0, wrong = 0;
  double worst = -1;
  for (std::int64_t i = 0; i < host_.numel(); ++i) {
    const double want = host_.as<double>()[i], have = got.as<double>()[i];
    const double difference = want == have || (std::isnan(want) && std::isnan(have)) ? 0 : std::abs(want - have);
    wrong += !(difference <= tolerance * (std::abs(want) + 1e-30));
    if (!(difference <= worst)) {
      worst = std::isfinite(difference) ? difference : std::numeric_limits<double>::infinity();
      at = i;
    }
  }
  return ::testing::AssertionFailure() << "error " << err << " over " << tolerance << "; worst at element " << at << " of " << host_.shape().str() << ": "
                                       << got.as<double>()[at] << " for " << host_.as<double>()[at] << "; " << wrong << " elements are off";
}

::testing::AssertionResult Twin::equal() {
  const Tensor got = downloaded();
  for (std::int64_t i = 0; i < host_.numel(); ++i) {
    const std::int64_t want = dtype_ == DType::kI64 ? host_.as<std::int64_t>()[i] : host_.as<std::int32_t>()[i];
    const std::int64_t have = dtype_ == DType::kI64 ? got.as<std::int64_t>()[i] : got.as<std::int32_t>()[i];
    if (want != have) return ::testing::AssertionFailure() << "element " << i << " of " << host_.shape().str() << ": " << have << " for " << want;
  }
  return ::testing::AssertionSuccess();
}

std::vector<std::byte> Twin::device_bytes() { return bytes_of(device_); }

void Twin::restore_device(const std::vector<std::byte>& bytes) {
  Stream stream = stream_of(kGpu);
  Tensor host = Tensor::empty(device_.shape, dtype_);
  if (!bytes.empty()) std::memcpy(host.view().data, bytes.data(), bytes.size());
  copy(stream, host, device_);
}

void Twin::poison_guards() {
  Stream stream = stream_of(kGpu);
  Tensor pattern = Tensor::empty({static_cast<std::int64_t>(kGuard)}, DType::kU8);
  std::memset(pattern.view().data, static_cast<int>(kPattern), kGuard);
  copy(stream, pattern, storage_.view().rows(0, kGuard));
  copy(stream, pattern, storage_.view().rows(storage_.numel() - static_cast<std::int64_t>(kGuard), storage_.numel()));
}

bool Twin::guards_intact() {
  const std::vector<std::byte> bytes = bytes_of(storage_);
  for (std::size_t i = 0; i < kGuard; ++i) {
    if (bytes[i] != kPattern || bytes[bytes.size() - 1 - i] != kPattern) return false;
  }
  return true;
}

void run_on_both(const std::vector<Twin*>& inputs, const std::vector<Twin*>& changed, const OpCall& call) {
  std::vector<std::vector<std::byte>> start, given;
  for (Twin* twin : changed) start.push_back(twin->device_bytes());
  for (Twin* twin : inputs) given.push_back(twin->device_bytes());
  Stream cpu(kCpu);
  call(cpu, Side{false});
  Stream gpu = stream_of(kGpu);
  call(gpu, Side{true});
  synchronize(gpu);
  std::vector<std::vector<std::byte>> first;
  for (Twin* twin : changed) first.push_back(twin->device_bytes());
  for (std::size_t i = 0; i < changed.size(); ++i) changed[i]->restore_device(start[i]);
  call(gpu, Side{true});
  synchronize(gpu);
  for (std::size_t i = 0; i < changed.size(); ++i) {
    EXPECT_TRUE(changed[i]->device_bytes() == first[i]) << "two runs differ in output " << i;
    EXPECT_TRUE(changed[i]->guards_intact()) << "bytes around output " << i << " were written";
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(inputs[i]->device_bytes() == given[i]) << "input " << i << " was changed";
  }
}

double tolerance_of(DType dtype, std::int64_t length) {
  const double f32 = 4e-7 * std::sqrt(static_cast<double>(length)) + 4e-7;
  return dtype == DType::kBf16 ? 4e-3 + f32 : f32;
}

}  // namespace hadal::test
