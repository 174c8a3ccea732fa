#include "checkpoint/parameters.h"

#include <cstring>
#include <functional>
#include <numeric>
#include <set>
#include <string>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

std::int64_t numel_of(const nn::LogicalPart& part) {
  return std::accumulate(part.extent.begin(), part.extent.end(), std::int64_t{1}, std::multiplies<>());
}

bool is_whole(const nn::LogicalPart& part) { return numel_of(part) == part.shape.numel(); }

/// The elements of `part` inside a parameter-shaped tensor.
View part_view(const ParameterValue& value, const nn::LogicalPart& part, const Shape& shape) {
  auto* data = static_cast<std::byte*>(value.value.data) + static_cast<std::size_t>(part.offset) * size_of(value.value.dtype);
  return {data, value.value.dtype, shape, value.value.device};
}

std::vector<ParameterValue> values_of(const nn::ParameterList& parameters) {
  std::vector<ParameterValue> values;
  for (nn::Parameter* parameter : parameters) values.push_back({parameter, parameter->value()});
  return values;
}

/// Copies the slice that `part` names out of the whole tensor.
void copy_slice(ConstView whole, const nn::LogicalPart& part, View into) {
  const auto rank = part.extent.size();
  const std::size_t element = size_of(whole.dtype);
  const std::size_t run = static_cast<std::size_t>(part.extent.back()) * element;
  std::vector<std::int64_t> index(rank, 0);
  auto* to = static_cast<std::byte*>(into.data);
  for (std::int64_t row = numel_of(part) / part.extent.back(); row-- > 0; to += run) {
    std::int64_t position = 0;
    for (std::size_t d = 0; d < rank; ++d) position = position * part.shape[static_cast<int>(d)] + part.begin[d] + index[d];
    std::memcpy(to, static_cast<const std::byte*>(whole.data) + static_cast<std::size_t>(position) * element, run);
    for (std::size_t d = rank - 1; d-- > 0;) {
      if (++index[d] < part.extent[d]) break;
      index[d] = 0;
    }
  }
}

std::string_view prefix_of(std::string_view name) {
  const std::size_t slash = name.find('/');
  return slash == std::string_view::npos ? std::string_view{} : name.substr(0, slash + 1);
}

/// Throws with everything that does not fit.
void check_fit(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix,
               LoadRule rule) {
  std::string problems;
  std::set<std::string, std::less<>> wanted;
  for (const ParameterValue& value : values) {
    for (const nn::LogicalPart& part : value.parameter->parts()) {
      const std::string name = std::string(prefix) + part.name;
      wanted.insert(name);
      const StoredTensor* stored = reader.find(name);
      if (stored == nullptr) {
        problems += fmt::format("\n  missing: {} {}", name, part.shape.str());
      } else if (!(stored->shape == part.shape)) {
        problems += fmt::format("\n  another shape: {} is {}, the model has {}", name, stored->shape.str(), part.shape.str());
      } else if (stored->dtype != value.value.dtype && !rule.convert_dtype) {
        problems += fmt::format("\n  another dtype: {} is {}, the model has {}", name, name_of(stored->dtype),
                                name_of(value.value.dtype));
      }
    }
  }
  for (const StoredTensor& stored : reader.tensors()) {
    if (!rule.allow_extra && prefix_of(stored.name) == prefix && !wanted.contains(stored.name)) {
      problems += fmt::format("\n  extra: {} {}", stored.name, stored.shape.str());
    }
  }
  if (!problems.empty()) throw UserError("{}: does not fit this model:{}", reader.path().string(), problems);
}

}  // namespace

void save_values(CheckpointWriter& writer, const std::vector<ParameterValue>& values, std::string_view prefix) {
  for (const ParameterValue& value : values) {
    for (const nn::LogicalPart& part : value.parameter->parts()) {
      HADAL_CHECK(is_whole(part), "{} holds a slice of {}", value.parameter->name(), part.name);
      writer.add(std::string(prefix) + part.name, part_view(value, part, part.shape));
    }
  }
}

void save_parameters(CheckpointWriter& writer, const nn::ParameterList& parameters, std::string_view prefix) {
  save_values(writer, values_of(parameters), prefix);
}

void load_values(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix,
                 LoadRule rule) {
  check_fit(reader, values, prefix, rule);
  for (const ParameterValue& value : values) {
    for (const nn::LogicalPart& part : value.parameter->parts()) {
      const StoredTensor& stored = reader.at(std::string(prefix) + part.name);
      if (is_whole(part)) {
        reader.read_converted(stored, part_view(value, part, part.shape));
        continue;
      }
      Tensor whole = Tensor::empty(part.shape, value.value.dtype);
      reader.read_converted(stored, whole);
      copy_slice(whole, part, part_view(value, part, Shape(std::span<const std::int64_t>(part.extent))));
    }
  }
}

void load_parameters(const CheckpointReader& reader, const nn::ParameterList& parameters, std::string_view prefix,
                     LoadRule rule) {
  load_values(reader, values_of(parameters), prefix, rule);
}

}  // namespace hadal::checkpoint
