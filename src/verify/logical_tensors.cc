#include "verify/logical_tensors.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>

#include "core/convert.h"
#include "core/copy.h"
#include "core/error.h"

namespace hadal::verify {
namespace {

/// Calls visit(element of the logical tensor, element of the parameter) for all of a part.
template <class Visit>
void for_each_element(const nn::LogicalPart& part, Visit&& visit) {
  const std::size_t rank = part.extent.size();
  std::vector<std::int64_t> index(rank, 0);
  std::int64_t numel = 1;
  for (const std::int64_t extent : part.extent) numel *= extent;
  for (std::int64_t i = 0; i < numel; ++i) {
    std::int64_t position = 0;
    for (std::size_t d = 0; d < rank; ++d) position = position * part.shape[static_cast<int>(d)] + part.begin[d] + index[d];
    visit(position, part.offset + i);
    for (std::size_t d = rank; d-- > 0;) {
      if (++index[d] < part.extent[d]) break;
      index[d] = 0;
    }
  }
}

void append_number(std::string& out, std::int64_t number) { out.append(reinterpret_cast<const char*>(&number), sizeof number); }

/// The first `count` bytes, which are taken off.
std::string_view take(std::string_view& bytes, std::size_t count) {
  HADAL_CHECK(count <= bytes.size(), "{} bytes of {}", count, bytes.size());
  const std::string_view taken = bytes.substr(0, count);
  bytes.remove_prefix(count);
  return taken;
}

std::int64_t take_number(std::string_view& bytes) {
  std::int64_t number = 0;
  std::memcpy(&number, take(bytes, sizeof number).data(), sizeof number);
  return number;
}

}  // namespace

LogicalTensors::Values& LogicalTensors::at(const std::string& name, const Shape& shape) {
  Values& tensor = tensors_[name];
  if (tensor.values.empty()) {
    tensor.shape = shape;
    tensor.values.assign(static_cast<std::size_t>(shape.numel()), 0.0);
    tensor.times.assign(tensor.values.size(), 0);
  }
  return tensor;
}

void LogicalTensors::put(const std::string& name, Values& to, std::size_t element, double value) {
  if (holders_ == Holders::kMany && to.times[element] != 0) {
    const bool same = std::bit_cast<std::uint64_t>(to.values[element]) == std::bit_cast<std::uint64_t>(value);
    if (!same && differing_copy_.empty()) differing_copy_ = fmt::format("ranks hold different copies of element {} of {}", element, name);
    return;
  }
  to.values[element] = value;
  ++to.times[element];
}

void LogicalTensors::add(const nn::Parameter& parameter, ConstView value) {
  Stream stream = stream_of(value.device);
  const Tensor stored = to_host(stream, value);
  Tensor exact = Tensor::empty(value.shape, DType::kF64);
  convert_floats(stored, exact);
  const std::scoped_lock lock(mutex_);
  for (const nn::LogicalPart& part : parameter.parts()) {
    Values& to = at(part.name, part.shape);
    for_each_element(part, [&](std::int64_t logical, std::int64_t element) {
      put(part.name, to, static_cast<std::size_t>(logical), exact.as<double>()[element]);
    });
  }
}

std::string LogicalTensors::bytes() const {
  std::string out;
  for (const auto& [name, tensor] : tensors_) {
    append_number(out, static_cast<std::int64_t>(name.size()));
    out += name;
    append_number(out, tensor.shape.rank());
    for (int d = 0; d < tensor.shape.rank(); ++d) append_number(out, tensor.shape[d]);
    out.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(double));
    out.append(tensor.times.data(), tensor.times.size());
  }
  return out;
}

void LogicalTensors::merge(std::string_view bytes) {
  const std::scoped_lock lock(mutex_);
  while (!bytes.empty()) {
    const std::string name(take(bytes, static_cast<std::size_t>(take_number(bytes))));
    std::vector<std::int64_t> extents(static_cast<std::size_t>(take_number(bytes)));
    for (std::int64_t& extent : extents) extent = take_number(bytes);
    Values& to = at(name, Shape(std::span<const std::int64_t>(extents)));
    const std::string_view values = take(bytes, to.values.size() * sizeof(double));
    const std::string_view times = take(bytes, to.times.size());
    for (std::size_t i = 0; i < times.size(); ++i) {
      double value = 0;
      std::memcpy(&value, values.data() + i * sizeof(double), sizeof(double));
      for (char added = 0; added < times[i]; ++added) put(name, to, i, value);
    }
  }
}

LogicalTensors::Difference LogicalTensors::compare(const LogicalTensors& reference) const {
  double largest = 0;
  for (const auto& [name, tensor] : reference.tensors_) {
    for (const double value : tensor.values) largest = std::max(largest, std::abs(value));
  }
  Difference result;
  result.problem = differing_copy_;
  for (const auto& [name, tensor] : tensors_) {
    if (!reference.tensors_.contains(name)) result.problem = fmt::format("{} is in no one-rank model", name);
  }
  for (const auto& [name, expected] : reference.tensors_) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      result.problem = fmt::format("{} is on no rank", name);
      continue;
    }
    const Values& mine = found->second;
    if (!(mine.shape == expected.shape)) {
      result.problem = fmt::format("{} is {}, with one rank {}", name, mine.shape.str(), expected.shape.str());
      continue;
    }
    const auto odd = std::ranges::find_if(mine.times, [](char times) { return times != 1; });
    if (odd != mine.times.end()) {
      result.problem = fmt::format("element {} of {} is held by {} groups of ranks", odd - mine.times.begin(), name, static_cast<int>(*odd));
    }
    double size = 1e-12 * largest, difference = 0;
    for (std::size_t i = 0; i < mine.values.size(); ++i) {
      size = std::max(size, std::abs(expected.values[i]));
      const double d = std::abs(mine.values[i] - expected.values[i]);
      difference = std::isnan(d) ? d : std::max(difference, d);
      if (std::isnan(d)) break;
    }
    const double relative = size == 0 ? difference : difference / size;
    if (std::isnan(relative) || relative > result.worst || result.tensor.empty()) {
      result.worst = relative;
      result.tensor = name;
    }
    if (std::isnan(relative)) break;
  }
  return result;
}

}  // namespace hadal::verify
