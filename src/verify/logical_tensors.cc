#include "verify/logical_tensors.h"

#include <algorithm>
#include <cmath>

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

}  // namespace

void LogicalTensors::add(const nn::Parameter& parameter, ConstView value) {
  const std::scoped_lock lock(mutex_);
  const double* from = value.as<double>();
  for (const nn::LogicalPart& part : parameter.parts()) {
    Values& to = tensors_[part.name];
    if (to.values.empty()) {
      to.shape = part.shape;
      to.values.assign(static_cast<std::size_t>(part.shape.numel()), 0.0);
      to.times.assign(to.values.size(), 0);
    }
    for_each_element(part, [&](std::int64_t logical, std::int64_t element) {
      to.values[static_cast<std::size_t>(logical)] = from[element];
      ++to.times[static_cast<std::size_t>(logical)];
    });
  }
}

LogicalTensors::Difference LogicalTensors::compare(const LogicalTensors& reference) const {
  double largest = 0;
  for (const auto& [name, tensor] : reference.tensors_) {
    for (const double value : tensor.values) largest = std::max(largest, std::abs(value));
  }
  Difference result;
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
