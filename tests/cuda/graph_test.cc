// Guards: a recorded graph reads device memory as it is at each launch; the memory that it works in is nobody else's; a body that fails,
// or wants something of the host, leaves nothing behind. test_device runs the same tests on a fake device.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/allocator.h"
#include "core/copy.h"
#include "core/graph.h"
#include "kernels/adamw.h"

namespace hadal {
namespace {

constexpr Device kDevice{DeviceKind::kCuda, 0};
constexpr std::int64_t kCount = 300'000;

Tensor filled(Stream& stream, float value, std::int64_t count = kCount) {
  Tensor host = Tensor::empty({count}, DType::kF32);
  for (float& x : host.span<float>()) x = value;
  return to_device(stream, host, kDevice);
}

float first_of(Stream& stream, const Tensor& x) { return to_host(stream, x).span<float>()[0]; }

class GraphOnDevice : public testing::Test {
 protected:
  Stream stream_ = stream_of(kDevice);
};

TEST_F(GraphOnDevice, ReadsWhatIsThereAtEachLaunch) {
  Tensor x = filled(stream_, 2), sum = Tensor::zeros({1}, DType::kF64, kDevice);
  const auto sum_of_squares = [&] {
    const Tensor between = x.clone();  // memory of the graph alone
    sum.fill_zero();
    run(stream_, kernels::SumSquares{.x = between, .result = sum});
  };
  sum_of_squares();
  Graph graph(stream_, sum_of_squares);
  EXPECT_EQ(to_host(stream_, sum).span<double>()[0], 4.0 * kCount);
  for (const float value : {3.0f, 5.0f}) {
    copy(stream_, filled(stream_, value), x);
    graph.launch();
    EXPECT_EQ(to_host(stream_, sum).span<double>()[0], value * value * kCount);
  }
}

TEST_F(GraphOnDevice, OwnsTheMemoryThatItWorksIn) {
  const Tensor nan = filled(stream_, std::numeric_limits<float>::quiet_NaN());
  Tensor result;
  const void* between = nullptr;
  const auto body = [&] {
    const Tensor scratch = nan.clone();
    between = scratch.view().data;
    result = scratch.clone();
  };
  body();
  result.reset();
  const std::size_t live = memory_stats(kDevice).live_bytes;
  {
    Graph graph(stream_, body);
    EXPECT_EQ(memory_stats(kDevice).live_bytes, live + 2 * block_bytes(nan.bytes()));
    std::vector<Tensor> others;
    for (int i = 0; i < 6; ++i) {
      others.push_back(filled(stream_, 1));
      EXPECT_NE(others.back().view().data, between);
    }
    graph.launch();
    for (const Tensor& other : others) EXPECT_EQ(first_of(stream_, other), 1.0f);
    EXPECT_TRUE(std::isnan(first_of(stream_, result)));
    result.reset();
    EXPECT_NE(filled(stream_, 1).view().data, between);
  }
  EXPECT_EQ(memory_stats(kDevice).live_bytes, live);
}

TEST_F(GraphOnDevice, WhatTheHostWouldHaveToDoIsRefused) {
  Tensor x = filled(stream_, 2);
  const std::size_t live = memory_stats(kDevice).live_bytes;
  EXPECT_THROW(Graph(stream_, [&] { first_of(stream_, x); }), Error);
  EXPECT_THROW(Graph(stream_, [&] { filled(stream_, 1); }), Error);
  EXPECT_THROW(Graph(stream_, [&] { synchronize(stream_); }), Error);
  EXPECT_THROW(Graph(stream_, [&] {
                 const Tensor some = x.clone();
                 throw UserError("a body that fails");
               }),
               UserError);
  EXPECT_EQ(memory_stats(kDevice).live_bytes, live);
  Graph graph(stream_, [&] { x.fill_zero(); });
  EXPECT_EQ(first_of(stream_, x), 2.0f);
  graph.launch();
  EXPECT_EQ(first_of(stream_, x), 0.0f);
}

}  // namespace
}  // namespace hadal
