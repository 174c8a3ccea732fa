#include "cli/data_batches.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "data/sampler.h"
#include "interop/safetensors.h"
#include "train/run_data.h"

namespace hadal::cli {

void write_batches(const Config& config, const BatchesFlags& flags) {
  const std::int64_t batch = config.train.global_batch;
  const std::int64_t row = config.data.sequence_length;
  if (config.train.batch_ramp.start > 0) {
    throw UserError("train.batch_ramp.start is {}: during a ramp the batches have no one shape; set train.batch_ramp.start=0",
                    config.train.batch_ramp.start);
  }
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 30;
  if (flags.steps > kMostTokens / batch / row) {
    throw UserError("--steps {}: {} x {} tokens a step make more than {} in all; take fewer steps", flags.steps, batch, row,
                    kMostTokens);
  }
  const train::RunData data = train::open_run_data(config);
  const auto first = static_cast<std::uint64_t>(flags.first_step * batch);
  const data::Batch samples = data.training->batch(first, flags.steps * batch);
  const Shape shape{flags.steps, batch, row};
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const auto& [name, tensor] : {std::pair<const char*, const Tensor&>{"tokens", samples.tokens},
                                     {"targets", samples.targets},
                                     {"loss_mask", samples.loss_mask},
                                     {"positions", samples.positions},
                                     {"document_ids", samples.document_ids}}) {
    tensors.emplace_back(name, tensor.view().reshape(shape));
  }
  interop::write_safetensors(
      flags.out, tensors,
      {{"sample_order", data.training->fingerprint().hex()}, {"first_step", std::to_string(flags.first_step)}});
}

}  // namespace hadal::cli
