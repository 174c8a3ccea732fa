#include "tests/support/communicator_checks.h"

#include <fmt/core.h>

#include <cstring>
#include <vector>

#include "tests/support/exchange_checks.h"

namespace hadal::test {
namespace {

/// A number that any rank can compute for any rank: magnitudes far apart, so that another order of adding gives other bits.
template <class T>
T value_of(int rank, std::int64_t index) {
  const std::uint64_t mixed =
      (static_cast<std::uint64_t>(rank) * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(index)) * 0xbf58476d1ce4e5b9u;
  const double fraction = static_cast<double>(mixed >> 11) * 0x1p-53 - 0.5;
  return static_cast<T>(fraction * (1 << (mixed % 19)));
}

template <class T>
std::string check_sum(comm::Communicator& world, std::int64_t numel) {
  std::vector<T> values(static_cast<std::size_t>(numel));
  std::vector<T> expected(values.size());
  for (std::int64_t i = 0; i < numel; ++i) {
    const auto at = static_cast<std::size_t>(i);
    values[at] = value_of<T>(world.rank(), i);
    expected[at] = value_of<T>(0, i);
    for (int rank = 1; rank < world.size(); ++rank) expected[at] = static_cast<T>(expected[at] + value_of<T>(rank, i));
  }
  world.all_reduce_sum(View{values.data(), kDTypeOf<T>, Shape{numel}, kCpu});
  if (numel > 0 && std::memcmp(values.data(), expected.data(), values.size() * sizeof(T)) != 0) {
    return fmt::format("sum of {} {} values differs from the sum in rank order; ", numel, name_of(kDTypeOf<T>));
  }
  return "";
}

std::string check_packed_sum(comm::Communicator& world) {
  std::vector<Tensor> tensors;
  for (const std::int64_t numel : {3, 0, 200000, 400001, 7}) {
    for (const DType dtype : {DType::kF32, DType::kF64}) tensors.push_back(Tensor::empty(Shape{numel}, dtype));
  }
  std::vector<Tensor> alone;
  std::vector<View> views;
  for (Tensor& tensor : tensors) {
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
      if (tensor.dtype() == DType::kF32) {
        tensor.as<float>()[i] = value_of<float>(world.rank(), i);
      } else {
        tensor.as<double>()[i] = value_of<double>(world.rank(), i);
      }
    }
    alone.push_back(tensor.clone());
    views.push_back(tensor.view());
  }
  world.all_reduce_sum(std::span<const View>(views));
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    world.all_reduce_sum(alone[t].view());
    if (tensors[t].numel() > 0 && std::memcmp(tensors[t].view().data, alone[t].view().data, tensors[t].bytes()) != 0) {
      return fmt::format("packed sum of tensor {} differs from its own sum; ", t);
    }
  }
  return "";
}

}  // namespace

std::string check_collectives(comm::Communicator& world) {
  std::string wrong;
  for (const std::int64_t numel : {1, 5, 64, 1000, 131072, 300007}) {
    wrong += check_sum<double>(world, numel) + check_sum<float>(world, numel) + check_sum<std::int64_t>(world, numel);
  }
  wrong += check_sum<float>(world, 2'500'003) + check_sum<double>(world, 0) + check_packed_sum(world);

  const std::int64_t max = world.all_reduce_max(world.rank() == world.size() / 2 ? 1000 : -world.rank());
  if (max != 1000) wrong += fmt::format("max is {}; ", max);
  const std::int64_t count = world.all_reduce_sum(std::int64_t{1});
  if (count != world.size()) wrong += fmt::format("sum of ones is {}; ", count);

  for (int root = 0; root < world.size(); ++root) {
    std::string text =
        world.rank() == root ? std::string(static_cast<std::size_t>(3000 * root + 1), static_cast<char>('a' + root)) : "mine";
    world.broadcast(text, root);
    if (text != std::string(static_cast<std::size_t>(3000 * root + 1), static_cast<char>('a' + root)))
      wrong += fmt::format("broadcast from {}; ", root);
  }
  const std::vector<std::string> all =
      world.all_gather(std::string(static_cast<std::size_t>(world.rank()) * 5, static_cast<char>('A' + world.rank())));
  for (int rank = 0; rank < world.size(); ++rank) {
    if (all.at(static_cast<std::size_t>(rank)) !=
        std::string(static_cast<std::size_t>(rank) * 5, static_cast<char>('A' + rank))) {
      wrong += fmt::format("gathered bytes of rank {}; ", rank);
    }
  }
  for (int i = 0; i < 100; ++i) world.barrier();
  return wrong + check_exchanges(world);
}

}  // namespace hadal::test
