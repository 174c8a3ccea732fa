// Guards: conversion on CUDA is the CPU's, element by element, on sizes and starts around the vector width; adding too.
#include "kernels/cast.h"

#include <gtest/gtest.h>

#include <cmath>
#include <iterator>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

/// Rows [start, size) of x into those of y.
void check(std::int64_t size, std::int64_t start, DType from, DType to, bool accumulate) {
  SCOPED_TRACE(testing::Message() << name_of(from) << " to " << name_of(to) << ", size " << size << " start " << start << " accumulate " << accumulate);
  Twin x = Twin::normal({size}, from, 1), y = accumulate || start > 0 ? Twin::normal({size}, to, 2) : Twin::output({size}, to);
  run_on_both({&x}, {&y}, [&](Stream& stream, auto side) {
    run(stream, kernels::Cast{.x = side(x).rows(start, size), .y = side(y).rows(start, size), .accumulate = accumulate});
  });
  EXPECT_TRUE(y.agrees(tolerance_of(to)));
}

TEST(CudaCast, EveryPair) {
  for (const DType from : {DType::kF32, DType::kBf16}) {
    for (const DType to : {DType::kF32, DType::kBf16}) {
      for (const bool accumulate : {false, true}) {
        for (const std::int64_t size : {1, 7, 8, 9, 4096, 100003}) {
          check(size, 0, from, to, accumulate);
          if (size > 4) check(size, 3, from, to, accumulate);
        }
      }
    }
  }
}

// Ties go to the even neighbour; what is not a number stays that; infinities and zeros keep their sign.
TEST(CudaCast, RoundsAsTheCpuDoes) {
  const float values[] = {1.00390625f, 1.01171875f, -1.00390625f, 3.3895314e38f, 3.4028235e38f, -0.0f, 1e-40f, INFINITY, -INFINITY, NAN};
  const std::int64_t count = std::ssize(values);
  Tensor x = Tensor::empty({count}, DType::kF32), y = Tensor::empty({count}, DType::kBf16);
  for (std::int64_t i = 0; i < count; ++i) x.as<float>()[i] = values[i];
  Stream cpu, gpu = stream_of(kGpu);
  run(cpu, kernels::Cast{.x = x, .y = y});
  const Tensor on_device = to_device(gpu, x, kGpu);
  Tensor rounded = Tensor::empty({count}, DType::kBf16, kGpu);
  run(gpu, kernels::Cast{.x = on_device, .y = rounded});
  const Tensor back = to_host(gpu, rounded);
  for (std::int64_t i = 0; i < count; ++i) {
    const float want = to_float(y.as<Bf16>()[i]), have = to_float(back.as<Bf16>()[i]);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(have)) << values[i];
    } else {
      EXPECT_EQ(back.as<Bf16>()[i].bits, y.as<Bf16>()[i].bits) << values[i];
    }
  }
}

}  // namespace
}  // namespace hadal::test
