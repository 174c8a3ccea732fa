// The tests of this folder, and those of tests/cuda that fit, on a fake device.
#include <gtest/gtest.h>

#include "tests/support/fake_cuda.h"
#include "tests/support/fake_device_transport.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  hadal::test::use_fake_cuda();
  hadal::test::use_fake_device_transport();
  return RUN_ALL_TESTS();
}
