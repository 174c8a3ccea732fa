#include "comm/communicator.h"

#include <algorithm>
#include <cstring>

#include "core/dtype.h"
#include "core/error.h"

namespace hadal::comm {
namespace {

/// Tensors at least this large are summed where they lie; smaller ones are packed until this many bytes are together.
constexpr std::size_t kPackedBytes = std::size_t{1} << 20;

void check_summable(const View& values) {
  HADAL_CHECK(values.dtype == DType::kF64 || values.dtype == DType::kF32 || values.dtype == DType::kI64, "sum over ranks of {}",
              name_of(values.dtype));
  HADAL_CHECK(values.device == kCpu, "sum over ranks of device memory");
}

}  // namespace

Communicator::Communicator(int rank, int size) : rank_(rank), size_(size) {
  HADAL_CHECK(size >= 1 && rank >= 0 && rank < size, "rank {} of {}", rank, size);
}

void Communicator::all_reduce_sum(View values) {
  check_summable(values);
  if (size_ > 1 && !values.empty()) sum_in_place(values.data, values.dtype, values.numel());
}

void Communicator::all_reduce_sum(std::span<const View> values) {
  if (size_ == 1) return;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kI64}) {
    std::vector<View> small;
    std::size_t small_bytes = 0;
    const auto flush = [&] {
      if (small.empty()) return;
      packed_.resize(std::max(packed_.size(), small_bytes));
      std::size_t at = 0;
      for (const View& view : small) {
        std::memcpy(packed_.data() + at, view.data, view.bytes());
        at += view.bytes();
      }
      sum_in_place(packed_.data(), dtype, static_cast<std::int64_t>(small_bytes / size_of(dtype)));
      at = 0;
      for (const View& view : small) {
        std::memcpy(view.data, packed_.data() + at, view.bytes());
        at += view.bytes();
      }
      small.clear();
      small_bytes = 0;
    };
    for (const View& view : values) {
      check_summable(view);
      if (view.dtype != dtype || view.empty()) continue;
      if (view.bytes() >= kPackedBytes) {
        sum_in_place(view.data, dtype, view.numel());
        continue;
      }
      if (small_bytes + view.bytes() > kPackedBytes) flush();
      small.push_back(view);
      small_bytes += view.bytes();
    }
    flush();
  }
}

double Communicator::all_reduce_sum(double value) {
  all_reduce_sum(View{&value, DType::kF64, Shape{1}, kCpu});
  return value;
}

std::int64_t Communicator::all_reduce_sum(std::int64_t value) {
  all_reduce_sum(View{&value, DType::kI64, Shape{1}, kCpu});
  return value;
}

void Communicator::broadcast(View values, int root) {
  HADAL_CHECK(values.device == kCpu, "broadcast of device memory");
  broadcast(std::span<std::byte>(static_cast<std::byte*>(values.data), values.bytes()), root);
}

void Communicator::broadcast(std::string& text, int root) {
  std::uint64_t bytes = text.size();
  broadcast(std::as_writable_bytes(std::span(&bytes, 1)), root);
  text.resize(bytes);
  broadcast(std::as_writable_bytes(std::span(text.data(), text.size())), root);
}

}  // namespace hadal::comm
