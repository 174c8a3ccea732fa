// Parameters to logical tensors and back: a Parameter in memory may fuse or stack and may hold slices, a checkpoint holds
// HF-named matrices. Whatever layout wrote a checkpoint, any layout reads it.
#pragma once

#include <string_view>
#include <vector>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "comm/communicator.h"
#include "core/tensor.h"
#include "nn/parameter.h"

namespace hadal::checkpoint {

/// A tensor that is laid out like a parameter (its value, a moment, a moving average), or the flat share of one that ZeRO leaves
/// on this rank: the parameter's packed elements [begin, begin + value.numel()).
struct ParameterValue {
  const nn::Parameter* parameter = nullptr;
  View value;  ///< of any shape
  std::int64_t begin = 0;
};

/// Writes each element as the one of the logical tensor `prefix` + name that it is. The values of all ranks together must hold
/// every element of every logical tensor once: replicas choose who writes (assign_evenly), or each writes its own flat share. The
/// memory stays as it is until the writer has committed. What lies on a device is copied to the host, a value at a time.
void save_values(CheckpointWriter& writer, const std::vector<ParameterValue>& values, std::string_view prefix);
void save_parameters(CheckpointWriter& writer, const nn::ParameterList& parameters, std::string_view prefix = "");

struct LoadRule {
  /// false: another dtype is refused (of values that a model rounds to bf16, another than f32); true: floats are converted (weights,
  /// never moments).
  bool convert_dtype = false;
  bool allow_extra = false;    ///< true: tensors of this prefix that no parameter wants are left alone (e.g. MTP)
};

/// Fills the values, on any device, from the logical tensors `prefix` + name, reading only the blocks that hold something of them. Before
/// anything is read, everything missing, extra (same prefix), misshapen or of another dtype is listed whole in one UserError.
void load_values(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix,
                 LoadRule rule = {});
void load_parameters(const CheckpointReader& reader, const nn::ParameterList& parameters, std::string_view prefix = "",
                     LoadRule rule = {});

/// The same when the ranks of `world` hold parts: extra is what no rank wants, and all ranks throw the same error. Collective.
void load_values(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix,
                 LoadRule rule, comm::Communicator& world);

}  // namespace hadal::checkpoint
