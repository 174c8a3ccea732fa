// The device runtime: copies through staging of sizes around its buffers, allocation, zeroing.
#include <gtest/gtest.h>

#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

TEST(CudaRuntime, CopiesThereAndBackOfAnySize) {
  Stream stream = stream_of(kGpu);
  for (const std::int64_t bytes : {1, 63, 4096, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 37 << 20}) {
    Tensor host = Tensor::empty({bytes}, DType::kU8);
    for (std::int64_t i = 0; i < bytes; ++i) host.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(i * 131 + i / 253);
    const Tensor device = to_device(stream, host, kGpu);
    const Tensor copied = device.clone();
    const Tensor back = to_host(stream, copied);
    ASSERT_TRUE(std::equal(back.span<std::uint8_t>().begin(), back.span<std::uint8_t>().end(), host.span<std::uint8_t>().begin())) << bytes;
  }
}

TEST(CudaRuntime, HostMemoryMayChangeAfterACopy) {
  Stream stream = stream_of(kGpu);
  Tensor host = Tensor::empty({1 << 20}, DType::kI32);
  Tensor device = Tensor::empty({64, 1 << 20}, DType::kI32, kGpu);
  for (int round = 0; round < 64; ++round) {
    for (std::int32_t& x : host.span<std::int32_t>()) x = round;
    copy(stream, host, device.view().rows(round, round + 1));
  }
  const Tensor back = to_host(stream, device);
  for (int round = 0; round < 64; ++round) ASSERT_EQ(back.as<std::int32_t>()[(round << 20) + round], round);
}

TEST(CudaRuntime, CountsMemory) {
  const MemoryStats before = memory_stats(kGpu);
  {
    const Tensor zeros = Tensor::zeros({1 << 20}, DType::kF32, kGpu);
    EXPECT_EQ(memory_stats(kGpu).live_bytes, before.live_bytes + (std::size_t{4} << 20));
    Stream stream = stream_of(kGpu);
    const Tensor back = to_host(stream, zeros);
    for (const float x : back.span<float>()) ASSERT_EQ(x, 0.0f);
  }
  EXPECT_EQ(memory_stats(kGpu).live_bytes, before.live_bytes);
  EXPECT_GE(memory_stats(kGpu).peak_bytes, before.live_bytes + (std::size_t{4} << 20));
}

TEST(CudaRuntime, SaysWhenMemoryIsMissing) {
  try {
    const Tensor huge = Tensor::empty({std::int64_t{1} << 50}, DType::kU8, kGpu);
    FAIL() << "a pebibyte was allocated";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kIo);
    EXPECT_NE(std::string(error.what()).find("cuda:0 is out of memory"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace hadal::test
