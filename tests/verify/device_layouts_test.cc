// Layouts on device memory that travels between ranks through the host, on a device whose ops are the CPU's: whatever host code between the
// layers touches device memory, or mixes it with its own, ends here.
#include <gtest/gtest.h>

#include "tests/support/fake_cuda.h"
#include "tests/verify/small_models.h"
#include "verify/layouts.h"
#include "verify/reference.h"
#include "verify/shrink.h"

namespace hadal::verify {
namespace {

TEST(DeviceLayouts, CoveringLayoutsEqualOneRank) {
  hadal::test::use_fake_cuda();
  Config small = shrink(test::everything(), 4, 8);
  small.run.device = DeviceChoice::kCuda;
  small.precision.compute = ComputeType::kF32;
  const Reference reference(small);
  for (const ParallelSection& layout : covering_layouts(small, 4)) {
    const LayoutResult result = reference.prove(layout, 4);
    EXPECT_TRUE(result.passed) << result.name << ": " << result.tensor << " differs by " << result.worst_error << "; " << result.problem;
  }
}

}  // namespace
}  // namespace hadal::verify
