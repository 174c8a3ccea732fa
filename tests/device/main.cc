// The tests of this folder, and those of tests/cuda that fit, on a fake device.
#include <gtest/gtest.h>

#include "tests/support/fake_cuda.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  hadal::test::use_fake_cuda();
  return RUN_ALL_TESTS();
}
