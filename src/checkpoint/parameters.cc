#include "checkpoint/parameters.h"

#include <algorithm>
#include <set>
#include <string>

#include "checkpoint/together.h"
#include "comm/single.h"
#include "core/copy.h"
#include "core/error.h"

namespace hadal::checkpoint {
namespace {

/// The elements of a logical part that a value holds.
struct HeldPart {
  const nn::LogicalPart* part;
  Slice slice;             ///< the part's
  std::int64_t first = 0;  ///< packed element of the slice
  View value;              ///< from that element on
};

View elements(const View& value, std::int64_t begin, std::int64_t count) {
  return {static_cast<std::byte*>(value.data) + static_cast<std::size_t>(begin) * size_of(value.dtype), value.dtype, Shape{count},
          value.device};
}

std::vector<HeldPart> held_parts(const ParameterValue& value) {
  const std::int64_t end = value.begin + value.value.numel();
  HADAL_CHECK(value.begin >= 0 && end <= value.parameter->numel(), "elements [{}, {}) of {} with {}", value.begin, end,
              value.parameter->name(), value.parameter->numel());
  std::vector<HeldPart> held;
  for (const nn::LogicalPart& part : value.parameter->parts()) {
    Slice slice{part.begin, part.extent};
    const std::int64_t first = std::max(part.offset, value.begin), last = std::min(part.offset + slice.numel(), end);
    if (first >= last) continue;
    held.push_back({&part, std::move(slice), first - part.offset, elements(value.value, first - value.begin, last - first)});
  }
  return held;
}

std::vector<ParameterValue> values_of(const nn::ParameterList& parameters) {
  std::vector<ParameterValue> values;
  for (nn::Parameter* parameter : parameters) values.push_back({parameter, parameter->value()});
  return values;
}

/// What a checkpoint holds of a value: of a parameter that is rounded for the model, what it is rounded from.
DType stored_dtype(const ParameterValue& value) {
  const bool rounded = value.value.dtype == value.parameter->dtype() && value.value.data == value.parameter->value().data;
  return rounded ? accumulation_dtype(value.value.dtype) : value.value.dtype;
}

std::string_view prefix_of(std::string_view name) {
  const std::size_t slash = name.find('/');
  return slash == std::string_view::npos ? std::string_view{} : name.substr(0, slash + 1);
}

/// Why a part cannot be filled from the checkpoint; empty when it can. Marks its tensor as wanted.
std::string problem_of(const CheckpointReader& reader, const nn::LogicalPart& part, DType dtype, std::string_view prefix,
                       LoadRule rule, std::span<std::int64_t> wanted) {
  const std::string name = std::string(prefix) + part.name;
  const StoredTensor* stored = reader.find(name);
  if (stored == nullptr) return fmt::format("missing: {} {}", name, part.shape.str());
  wanted[static_cast<std::size_t>(stored - reader.tensors().data())] = 1;
  if (!(stored->shape == part.shape))
    return fmt::format("another shape: {} is {}, the model has {}", name, stored->shape.str(), part.shape.str());
  if (stored->dtype != dtype && !rule.convert_dtype) {
    return fmt::format("another dtype: {} is {}, the model has {}", name, name_of(stored->dtype), name_of(dtype));
  }
  return "";
}

/// Throws with everything that does not fit any rank; alike on all.
void check_fit(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix, LoadRule rule,
               comm::Communicator& world) {
  std::string mine;
  Tensor wanted = Tensor::zeros(Shape{static_cast<std::int64_t>(reader.tensors().size())}, DType::kI64);
  for (const ParameterValue& value : values) {
    for (const nn::LogicalPart& part : value.parameter->parts()) {
      const std::string problem = problem_of(reader, part, stored_dtype(value), prefix, rule, wanted.span<std::int64_t>());
      if (!problem.empty()) mine += problem + "\n";
    }
  }
  world.all_reduce_sum(wanted.view());
  std::string problems;
  std::set<std::string, std::less<>> told;
  const auto tell = [&](std::string_view problem) {
    if (told.emplace(problem).second) problems += fmt::format("\n  {}", problem);
  };
  for (const std::string& lines : world.all_gather(mine)) {
    for (std::size_t begin = 0; begin < lines.size(); begin = lines.find('\n', begin) + 1) {
      tell(std::string_view(lines).substr(begin, lines.find('\n', begin) - begin));
    }
  }
  for (std::size_t i = 0; i < reader.tensors().size() && !rule.allow_extra; ++i) {
    const StoredTensor& stored = reader.tensors()[i];
    if (prefix_of(stored.name) == prefix && wanted.span<std::int64_t>()[i] == 0)
      tell(fmt::format("extra: {} {}", stored.name, stored.shape.str()));
  }
  if (!problems.empty()) throw UserError("{}: does not fit this model:{}", reader.path().string(), problems);
}

/// Reads what lies on the host at once, all together; what lies on a device through host memory, as much at a time as kStagingBytes.
class Reads {
 public:
  explicit Reads(const CheckpointReader& reader) : reader_(reader) {}

  void add(const StoredTensor& stored, const HeldPart& held) {
    if (held.value.device.is_cpu()) {
      reads_.push_back({&stored, held.slice, held.value, held.first});
      return;
    }
    const auto most = static_cast<std::int64_t>(kStagingBytes / size_of(held.value.dtype));
    for (std::int64_t begin = 0; begin < held.value.numel(); begin += most) {
      const std::int64_t count = std::min(most, held.value.numel() - begin);
      const View to = elements(held.value, begin, count);
      if (staged_bytes_ + to.bytes() > kStagingBytes) finish();
      staged_.push_back({Tensor::empty(Shape{count}, to.dtype), to});
      staged_bytes_ += to.bytes();
      reads_.push_back({&stored, held.slice, staged_.back().from, held.first + begin});
    }
  }

  void finish() {
    reader_.read_slices(reads_);
    for (const Staged& staged : staged_) {
      Stream stream = stream_of(staged.to.device);
      copy(stream, staged.from, staged.to);
    }
    reads_.clear();
    staged_.clear();
    staged_bytes_ = 0;
  }

 private:
  static constexpr std::size_t kStagingBytes = std::size_t{256} << 20;
  struct Staged {
    Tensor from;
    View to;
  };

  const CheckpointReader& reader_;
  std::vector<SliceRead> reads_;
  std::vector<Staged> staged_;
  std::size_t staged_bytes_ = 0;
};

}  // namespace

void save_values(CheckpointWriter& writer, const std::vector<ParameterValue>& values, std::string_view prefix) {
  for (const ParameterValue& value : values) {
    for (const HeldPart& held : held_parts(value)) {
      std::int64_t done = 0;
      for (Slice& box : boxes_of_range(held.slice, held.first, held.first + held.value.numel())) {
        const std::int64_t numel = box.numel();
        SliceName name{std::string(prefix) + held.part->name, held.part->shape, std::move(box)};
        const View part = elements(held.value, done, numel);
        if (part.device.is_cpu()) {
          writer.add_slice(name, part);
        } else {
          Stream stream = stream_of(part.device);
          writer.add_slice(name, to_host(stream, part));
        }
        done += numel;
      }
    }
  }
}

void save_parameters(CheckpointWriter& writer, const nn::ParameterList& parameters, std::string_view prefix) {
  save_values(writer, values_of(parameters), prefix);
}

void load_values(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix,
                 LoadRule rule, comm::Communicator& world) {
  check_fit(reader, values, prefix, rule, world);
  together(world, [&] {
    Reads reads(reader);
    for (const ParameterValue& value : values) {
      for (const HeldPart& held : held_parts(value)) reads.add(reader.at(std::string(prefix) + held.part->name), held);
    }
    reads.finish();
  });
}

void load_values(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix,
                 LoadRule rule) {
  comm::SingleCommunicator alone;
  load_values(reader, values, prefix, rule, alone);
}

void load_parameters(const CheckpointReader& reader, const nn::ParameterList& parameters, std::string_view prefix,
                     LoadRule rule) {
  load_values(reader, values_of(parameters), prefix, rule);
}

}  // namespace hadal::checkpoint
