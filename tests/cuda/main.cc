// Runs where a CUDA device answers; elsewhere it says so and exits with 77, which ctest lists as a test that did not run.
#include <gtest/gtest.h>

#include <cstdio>

#include "core/device_backend.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!testing::GTEST_FLAG(list_tests) && hadal::num_cuda_devices() == 0) {
    std::puts("SKIPPED: no CUDA device here");
    return 77;
  }
  return RUN_ALL_TESTS();
}
