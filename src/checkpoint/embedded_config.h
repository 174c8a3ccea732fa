// The resolved config that a checkpoint carries: what made it, and what logits, generate, eval and export build the model from.
#pragma once

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/state.h"
#include "config/config.h"

namespace hadal::checkpoint {

/// Keys of State that more than one command reads.
inline constexpr const char* kConfigKey = "config";             ///< YAML text, every key
inline constexpr const char* kConfigHashKey = "config_hash";    ///< of that text, hex
inline constexpr const char* kWeightsOnlyKey = "weights_only";  ///< 1: no moments, no cursor: can start a run, not continue one

void set_config(State& state, const Config& config);

/// UserError or DamagedDataError naming the checkpoint when there is none or it is not valid. Nothing outside the text is read.
Config config_of(const CheckpointReader& reader);

}  // namespace hadal::checkpoint
