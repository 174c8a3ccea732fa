// Keys of the section `parallel`: the layout of a run over its ranks (spec/parallelism.md 2). Form of these structs: config.h.
#pragma once

#include <cstdint>
#include <vector>

#include "config/field.h"

namespace hadal {

enum class ScheduleKind { kGpipe, kOneFOneB, kInterleaved, kZeroBubbleH1, kZeroBubbleH2, kDualPipeV, kDualPipe };
enum class DeviceTransportChoice { kAutomatic, kNccl, kHost };

/// What one pipeline stage holds, written by hand.
struct StageSection {
  std::int64_t layers = 0;
  bool head = false;
  std::int64_t mtp = 0;

  template <class V>
  void visit(V& v) {
    v.key("layers", layers, at_least(0), "consecutive layers of this stage");
    v.key("head", head, "this stage ends with the final norm and the head; exactly one does, after all layers");
    v.key("mtp", mtp, between(0, 8), "MTP modules of this stage, after the head");
  }
};

struct ParallelSection {
  std::int64_t tp = 1;
  std::int64_t cp = 1;
  std::int64_t pp = 1;
  std::int64_t ep = 1;
  std::int64_t etp = 1;
  ScheduleKind schedule = ScheduleKind::kOneFOneB;
  std::int64_t chunks = 2;
  std::vector<StageSection> stages;
  std::int64_t ranks_per_node = 0;
  double expert_capacity = 0;
  DeviceTransportChoice device_transport = DeviceTransportChoice::kAutomatic;

  template <class V>
  void visit(V& v) {
    v.key("tp", tp, between(1, 1024), "tensor (and sequence) parallel ranks: attention heads, FFN channels, vocabulary");
    v.key("cp", cp, between(1, 1024), "context parallel ranks: chunks of each sequence");
    v.key("pp", pp, between(1, 1024), "pipeline ranks; what is left of the ranks after tp, cp and pp is data parallel");
    v.key("ep", ep, between(1, 65536), "expert parallel ranks, out of the dp x cp x tp ranks of a pipeline stage");
    v.key("etp", etp, between(1, 1024), "tensor parallel ranks inside an expert, out of the same ranks");
    v.key("schedule", schedule,
          {{"gpipe", ScheduleKind::kGpipe},
           {"1f1b", ScheduleKind::kOneFOneB},
           {"interleaved", ScheduleKind::kInterleaved},
           {"zb_h1", ScheduleKind::kZeroBubbleH1},
           {"zb_h2", ScheduleKind::kZeroBubbleH2},
           {"dualpipe_v", ScheduleKind::kDualPipeV},
           {"dualpipe", ScheduleKind::kDualPipe}},
          "order of forward and backward passes over the pipeline; dualpipe and dualpipe_v hold two stages a rank");
    v.key("chunks", chunks, between(1, 64), "interleaved: stages per rank");
    v.list("stages", stages, "what each pipeline stage holds, in order; empty: layers are spread evenly, head and MTP at the end");
    v.key("ranks_per_node", ranks_per_node, between(0, 1024),
          "experts' tokens travel between nodes of so many ranks once and are spread inside; 0: straight to each rank");
    v.key("expert_capacity", expert_capacity, at_least(0),
          "room for experts' tokens between ranks, in multiples of what an even load needs (1 or more): planned on the device, without a wait of the "
          "host; a step that needs more is done again with more room. 0: exact counts, planned on the host");
    v.key("device_transport", device_transport,
          {{"auto", DeviceTransportChoice::kAutomatic}, {"nccl", DeviceTransportChoice::kNccl}, {"host", DeviceTransportChoice::kHost}},
          "how GPU memory travels between ranks; auto: by NCCL where each rank has a GPU of its own, else through the host");
  }
};

}  // namespace hadal
