// Which inference engines a model shape can target (spec/interop.md 3 and 5): told at train start, since most shape mistakes
// cannot be repaired at export, and again by the export.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace hadal::model {

struct EngineNote {
  std::string_view engine;  ///< "transformers", "vllm", "sglang", "llama.cpp"
  bool ok = true;
  std::string reason;  ///< what stands in the way, or under which flag it works; empty when there is nothing to say
};

/// The HF model type that the shape exports as: "deepseek_v3", "deepseek_v2", "hadal_nsa", or empty when there is none.
std::string_view export_model_type(const ModelSection& model);

/// One note per engine, always in the same order.
std::vector<EngineNote> engine_notes(const ModelSection& model);

}  // namespace hadal::model
