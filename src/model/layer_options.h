// From the config's model section to the option structs of the layers.
#pragma once

#include "config/config.h"
#include "nn/attention/attention_options.h"
#include "nn/moe/moe_layer.h"

namespace hadal::model {

/// How a model is trained, as far as its layers must know it.
struct ModelOptions {
  ModelSection shape;
  nn::BalanceWeights balance;
  DType dtype = DType::kF32;
  bool forced_routing = false;  ///< bench: perfectly even expert load
  Device device{};

  Storage storage() const { return {dtype, device}; }
};

/// `device`: where this rank computes (config.run.device, train/run_device.h).
ModelOptions model_options(const Config& config, Device device = kCpu);
/// Attention of layer `layer_idx`; MTP modules count on after the last layer.
nn::AttentionOptions attention_options(const ModelOptions& model, std::int64_t layer_idx);
/// Whether layer `layer_idx` has experts; MTP modules always have when the model has any.
bool is_moe_layer(const ModelSection& shape, std::int64_t layer_idx);
nn::MoeOptions moe_options(const ModelOptions& model);

}  // namespace hadal::model
