// Keys of a machine file (configs/machine/*.yaml): what one rank has, for `hadal plan`. A schema of its own beside config.h, of
// the same form. Bandwidths and peaks are of one rank (a GPU, or the cores of a CPU rank).
#pragma once

#include <cstdint>
#include <string>

#include "config/field.h"

namespace hadal {

enum class MachinePrecision { kConfig, kBf16 };

struct MachinePeakSection {
  double f64 = 0;
  double f32 = 0;
  double bf16 = 0;

  template <class V>
  void visit(V& v) {
    v.key("f64", f64, between(0.0, 1e18), "matrix products, operations per second");
    v.key("f32", f32, between(0.0, 1e18), "the same in f32; 0: not offered");
    v.key("bf16", bf16, between(0.0, 1e18), "the same in bf16 with f32 sums; 0: not offered");
  }
};

struct MachineLinkSection {
  double intra = 0;
  double inter = 0;
  double latency_us = 0;

  template <class V>
  void visit(V& v) {
    v.key("intra", intra, between(1.0, 1e15), "bytes per second that a rank sends inside its node, one way");
    v.key("inter", inter, between(1.0, 1e15), "bytes per second that a rank sends to other nodes, one way");
    v.key("latency_us", latency_us, between(0.0, 1e6), "microseconds until the first byte of a message is there");
  }
};

/// What a real program reaches of the peaks.
struct MachineEfficiencySection {
  double gemm = 0.7;
  double grouped_gemm = 0.6;
  double attention_forward = 0.5;
  double attention_backward = 0.4;
  double sparse_attention = 0.3;
  double memory = 0.8;
  double intra = 0.8;
  double inter = 0.8;
  double spread = 0.15;

  template <class V>
  void visit(V& v) {
    v.key("gemm", gemm, between(0.01, 1.0), "share of the peak in dense products");
    v.key("grouped_gemm", grouped_gemm, between(0.01, 1.0), "share of the peak in the experts' products");
    v.key("attention_forward", attention_forward, between(0.01, 1.0), "share of the peak in dense attention's scores and values");
    v.key("attention_backward", attention_backward, between(0.01, 1.0), "the same backward");
    v.key("sparse_attention", sparse_attention, between(0.01, 1.0), "the same in the branches of sparse attention");
    v.key("memory", memory, between(0.01, 1.0), "share of the memory bandwidth in passes over tensors");
    v.key("intra", intra, between(0.01, 1.0), "share of the link inside a node");
    v.key("inter", inter, between(0.01, 1.0), "share of the link between nodes");
    v.key("spread", spread, between(0.0, 0.9), "the range of the forecast: every efficiency times 1 - spread to 1 + spread");
  }
};

/// How much of a transfer hides under what may run beside it.
struct MachineOverlapSection {
  double experts = 0;
  double pairs = 0;
  double gradients = 0;

  template <class V>
  void visit(V& v) {
    v.key("experts", experts, between(0.0, 1.0), "of the experts' all-to-all, under the shared experts of the same tokens");
    v.key("pairs", pairs, between(0.0, 1.0),
          "of all transfers of an F&B pair (dualpipe, dualpipe_v), under the pair's computations");
    v.key("gradients", gradients, between(0.0, 1.0), "of the gradients' reduction, under the last micro-batch's backward pass");
  }
};

struct MachineSection {
  std::string name;
  MachinePrecision precision = MachinePrecision::kConfig;
  std::int64_t ranks_per_node = 1;
  double memory_gib = 0;
  double reserve_gib = 0;
  double memory_bandwidth = 0;
  MachinePeakSection peak;
  MachineLinkSection link;
  MachineEfficiencySection efficiency;
  MachineOverlapSection overlap;

  template <class V>
  void visit(V& v) {
    v.key("name", name, "as it is called in tables");
    v.key("precision", precision, {{"config", MachinePrecision::kConfig}, {"bf16", MachinePrecision::kBf16}},
          "config: everything in precision.compute; bf16: weights and activations in bf16, master weights, gradients and moments "
          "in f32");
    v.key("ranks_per_node", ranks_per_node, between(1, 1024), "ranks that share the faster links");
    v.key("memory_gib", memory_gib, between(0.001, 1e6), "memory of one rank");
    v.key("reserve_gib", reserve_gib, between(0.0, 1e6),
          "of it, what the runtime, communication libraries and fragmentation take");
    v.key("memory_bandwidth", memory_bandwidth, between(1.0, 1e15), "bytes per second, reads and writes together");
    v.section("peak", peak, "matrix products");
    v.section("link", link, "between ranks");
    v.section("efficiency", efficiency, "what is reached of the peaks");
    v.section("overlap", overlap, "transfers under computations");
  }
};

}  // namespace hadal
