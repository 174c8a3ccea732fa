// One op on two devices (design.md 4, promise 2): the CPU in f64 is the reference, CUDA runs in f32 or bf16 on the same values.
//
//   Twin x = Twin::normal({rows, width}, DType::kBf16, 1), y = Twin::output({rows, width}, DType::kBf16);
//   run_on_both({&x}, {&y}, [&](Stream& stream, auto side) { run(stream, kernels::Add{.a = side(x), .b = side(x), .y = side(y)}); });
//   EXPECT_TRUE(y.agrees(1e-2));
//
// run_on_both also checks that the bytes around every device tensor are untouched, that inputs are unchanged, and that a second run
// from the same start gives the same bits.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <functional>
#include <vector>

#include "core/copy.h"
#include "core/tensor.h"
#include "kernels/heads.h"

namespace hadal::test {

/// The device of these tests, and its stream.
inline constexpr Device kGpu{DeviceKind::kCuda, 0};

class Twin {
 public:
  /// `host` f64 or an integer dtype. A float twin's values are first rounded to `dtype` (f32 or bf16) of the device, so that both
  /// sides see the same numbers; f64 on the device too where `dtype` says so (loss sums).
  Twin(Tensor host, DType dtype);
  /// Normal(0, std) values that depend on (seed, element) alone.
  static Twin normal(Shape shape, DType dtype, std::uint64_t seed, double std = 1.0);
  /// Something to be overwritten: NaN on both sides.
  static Twin output(Shape shape, DType dtype);
  static Twin zeros(Shape shape, DType dtype);
  static Twin ints(Shape shape, const std::vector<std::int64_t>& values, DType dtype = DType::kI32);

  View host() { return host_; }
  View device() { return device_; }
  const Shape& shape() const { return host_.shape(); }
  /// max |device - host| / max |host|; NaN where only one side has one counts as infinite.
  double error();
  /// error() <= tolerance; says where the largest difference is.
  ::testing::AssertionResult agrees(double tolerance);
  /// Integer twins: equal element by element.
  ::testing::AssertionResult equal();

  // For run_on_both.
  std::vector<std::byte> device_bytes();
  void restore_device(const std::vector<std::byte>& bytes);
  bool guards_intact();
  void poison_guards();

 private:
  Tensor downloaded();

  Tensor host_;
  Tensor storage_;  ///< device: guard, values, guard
  View device_;
  DType dtype_;
};

/// Which view of a twin an op gets.
struct Side {
  bool on_device;
  View operator()(Twin& twin) const { return on_device ? twin.device() : twin.host(); }
};

using OpCall = std::function<void(Stream&, Side)>;

/// Runs the op on the CPU, then twice on the device from the same start. `changed`: twins that the op writes; `inputs` must keep
/// their bytes. Failures are reported to GoogleTest.
void run_on_both(const std::vector<Twin*>& inputs, const std::vector<Twin*>& changed, const OpCall& call);

/// What a result in `dtype` may differ by after sums over `length` terms of like size: rounding of the result, and of the sum where
/// it is held in f32.
double tolerance_of(DType dtype, std::int64_t length = 1);

}  // namespace hadal::test
