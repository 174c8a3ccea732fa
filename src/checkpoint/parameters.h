// Parameters to logical tensors and back: a Parameter in memory may fuse or stack, a checkpoint holds HF-named matrices.
#pragma once

#include <string_view>
#include <vector>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "core/tensor.h"
#include "nn/parameter.h"

namespace hadal::checkpoint {

/// A tensor that is laid out like a parameter: the parameter's value itself, a moment, a moving average.
struct ParameterValue {
  const nn::Parameter* parameter = nullptr;
  View value;
};

/// Writes each part as the logical tensor `prefix` + name. Every part must be whole.
void save_values(CheckpointWriter& writer, const std::vector<ParameterValue>& values, std::string_view prefix);
void save_parameters(CheckpointWriter& writer, const nn::ParameterList& parameters, std::string_view prefix = "");

struct LoadRule {
  bool convert_dtype = false;  ///< false: another dtype is refused; true: floats are converted (weights, never moments)
  bool allow_extra = false;    ///< true: tensors of this prefix that no parameter wants are left alone (e.g. MTP)
};

/// Fills each part from the logical tensor `prefix` + name. Before anything is read, everything missing, extra (same prefix),
/// misshapen or of another dtype is listed whole in one UserError.
void load_values(const CheckpointReader& reader, const std::vector<ParameterValue>& values, std::string_view prefix,
                 LoadRule rule = {});
void load_parameters(const CheckpointReader& reader, const nn::ParameterList& parameters, std::string_view prefix = "",
                     LoadRule rule = {});

}  // namespace hadal::checkpoint
