#include "plan/rank_memory.h"

#include <algorithm>
#include <utility>

#include "core/allocator.h"
#include "kernels/cuda_scratch.h"
#include "optim/flat_layout.h"
#include "optim/sharded_adamw.h"

namespace hadal::plan {
namespace {

std::int64_t block(std::int64_t numel, DType dtype) {
  return static_cast<std::int64_t>(block_bytes(static_cast<std::size_t>(numel) * size_of(dtype)));
}

/// Parameters lie in the slabs of optim/flat_layout.h, one layout for each replica group.
void add_state(const Config& config, const Layout& layout, const RankShape& shape, const parallel::Place& place,
               RankMemory& memory) {
  std::map<std::pair<std::vector<std::int64_t>, nn::Replication>, std::vector<const ParameterSize*>> groups;
  const std::vector<ParameterSize> parameters = rank_parameters(config, layout, place);
  for (const ParameterSize& parameter : parameters) {
    if (parameter.trainable()) {
      groups[{parameter.holders, parameter.replication}].push_back(&parameter);
    } else {
      memory.weights += block(parameter.numel, DType::kF32);
    }
  }
  const Formats& formats = shape.formats;
  for (const auto& [key, members] : groups) {
    std::vector<std::int64_t> numels;
    for (const ParameterSize* parameter : members) numels.push_back(parameter->numel);
    const std::int64_t bucket = optim::ShardedAdamW::kBucketBytes / static_cast<std::int64_t>(size_of(formats.gradient));
    const optim::FlatLayout flat(numels, static_cast<int>(replicas(*members.front(), layout.grid)), bucket);
    for (std::size_t slab = 0; slab < flat.slabs().size(); ++slab) {
      const std::int64_t owned = flat.owned_numel(slab);
      memory.weights += block(flat.slabs()[slab].numel(), formats.compute);
      memory.gradients += block(flat.slabs()[slab].numel(), formats.gradient);
      memory.optimizer += 2 * block(owned, formats.moment) + (formats.master ? block(owned, formats.gradient) : 0);
      if (config.optim.ema_decay > 0) memory.average += block(owned, formats.gradient);
    }
  }
}

/// data::Batch of this rank's rows (always on the host), model::MicroBatch of each micro-batch, and what the layers hold beside their parameters.
void add_inputs(const Config& config, const Layout& layout, const RankShape& shape, const parallel::Place& place,
                std::int64_t micro_batches, RankMemory& memory) {
  const std::int64_t dp = layout.grid.dp(), global = config.train.global_batch, s = shape.whole_seq;
  const std::int64_t rows = global / dp + (place.dp_rank < global % dp ? 1 : 0);
  if (shape.on_host) memory.inputs += 4 * block(rows * s, DType::kI32) + block(rows * s, DType::kU8);
  const std::int64_t prediction = block(shape.tokens, DType::kI32) + block(shape.tokens, accumulation_dtype(shape.formats.compute));
  memory.inputs += micro_batches * (block(shape.tokens, DType::kI32) + prediction +
                                    shape.model.mtp.depth * (block(shape.tokens, DType::kI32) + prediction));
  const AttentionSection& a = shape.model.attention;
  const std::int64_t rope = a.kind == AttentionKind::kMla ? a.qk_rope_head_dim : a.head_dim;
  for (const std::int64_t stage : layout.stage_placement(place.pp_rank).slots) {
    memory.inputs += 2 * block(shape.model.max_positions * rope / 2, accumulation_dtype(shape.formats.compute));
    const model::StageContent& content = layout.stages[static_cast<std::size_t>(stage)];
    if (shape.model.moe.num_experts > 0)
      memory.inputs += (content.num_layers + content.num_mtp) * block(shape.model.moe.num_experts, DType::kI64);
  }
}

/// Follows the rank's list as schedule/executor.cc does.
class Walk {
 public:
  Walk(const std::map<std::int64_t, StageMemory>& stages, RankMemory& memory) : stages_(stages), memory_(memory) {}

  void run(const schedule::ActionList& list) {
    for (const schedule::Action& action : list) {
      switch (action.op) {
        case schedule::Op::kSend:
          break;
        case schedule::Op::kReceive:
          transfers_ += memory_of(action.work).boundary;
          break;
        case schedule::Op::kRelease:
          transfers_ -= memory_of(action.work).boundary;
          break;
        case schedule::Op::kForward:
          forward(action.work);
          break;
        case schedule::Op::kBackward:
          backward(action.work);
          break;
        case schedule::Op::kForwardBackward:
          forward(action.work);
          backward(action.backward);
          break;
        case schedule::Op::kBackwardInput: {
          const StageMemory& m = memory_of(action.work);
          see(m.input_peak);
          records_ += m.record_after_input - m.record;
          if (!m.last) transfers_ -= m.boundary;
          if (!m.first) transfers_ += m.boundary;
          break;
        }
        case schedule::Op::kBackwardWeight: {
          const StageMemory& m = memory_of(action.work);
          see(m.weight_peak);
          records_ -= m.record_after_input;
          --in_flight_;
          break;
        }
      }
      see(0);
    }
  }

 private:
  const StageMemory& memory_of(const schedule::Work& work) const { return stages_.at(work.stage); }

  void forward(const schedule::Work& work) {
    const StageMemory& m = memory_of(work);
    memory_.micro_batches_in_flight = std::max(memory_.micro_batches_in_flight, ++in_flight_);
    see(m.forward_peak, m.record - (m.first ? 0 : m.boundary));
    records_ += m.record;
    told_ += m.told;
    if (!m.first) transfers_ -= m.boundary;
    if (!m.last) transfers_ += m.boundary;
  }
  void backward(const schedule::Work& work) {
    const StageMemory& m = memory_of(work);
    see(m.backward_peak);
    records_ -= m.record;
    --in_flight_;
    if (!m.last) transfers_ -= m.boundary;
    if (!m.first) transfers_ += m.boundary;
  }

  /// `kept`: of a computation's own bytes, those of its record.
  void see(std::int64_t work, std::int64_t kept = 0) {
    const std::int64_t now = records_ + told_ + transfers_ + work;
    if (now <= peak_) return;
    peak_ = now;
    memory_.activations = records_ + told_ + kept;
    memory_.transfers = transfers_;
    memory_.work = work - kept;
  }

  const std::map<std::int64_t, StageMemory>& stages_;
  RankMemory& memory_;
  std::int64_t records_ = 0, told_ = 0, transfers_ = 0, peak_ = -1;
  int in_flight_ = 0;
};

}  // namespace

RankMemory rank_memory(const Config& config, const Layout& layout, const RankShape& shape, const parallel::Place& place,
                       const schedule::Plan& plan, const std::map<std::int64_t, StageMemory>& stages) {
  RankMemory memory;
  add_state(config, layout, shape, place, memory);
  add_inputs(config, layout, shape, place, plan.placement.num_micro_batches(), memory);
  if (shape.kernels == Kernels::kCuda) memory.inputs += static_cast<std::int64_t>(kernels::kGemmWorkspaceBytes);
  Walk(stages, memory).run(plan.ranks[static_cast<std::size_t>(place.pp_rank)]);
  memory.peak = memory.weights + memory.gradients + memory.optimizer + memory.average + memory.inputs + memory.activations +
                memory.transfers + memory.work;
  return memory;
}

}  // namespace hadal::plan
