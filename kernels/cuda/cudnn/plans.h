// cuDNN execution plans for causal attention, built once per shape. Kept apart from the ops, since the frontend's headers take long to
// compile.
#pragma once

#include <array>
#include <compare>
#include <cstdint>

#include "core/stream.h"

namespace hadal::kernels::cuda::cudnn {

/// Strides of a [batch, heads, rows, width] tensor whose last dim is contiguous, in elements.
struct Strides {
  std::int64_t batch = 0, head = 0, row = 0;
  auto operator<=>(const Strides&) const = default;
};

/// What a plan is made for. Forward: q, k, v, o; backward also d_o, d_q, d_k, d_v. Keys carry all columns (w + ws).
struct Shape {
  bool backward = false;
  std::int64_t batch = 0, heads = 0, kv_heads = 0, rows = 0, key_width = 0, value_width = 0;
  float scale = 1;
  Strides q{}, k{}, v{}, o{}, d_o{}, d_q{}, d_k{}, d_v{};
  auto operator<=>(const Shape&) const = default;
};

/// Device memory. `statistics` f32 [batch, heads, rows]: written forward, read backward.
struct Buffers {
  const void *q = nullptr, *k = nullptr, *v = nullptr;
  void* o = nullptr;
  void* statistics = nullptr;
  const void* d_o = nullptr;
  void *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
};

/// Whether this cuDNN has a plan for the shape on the stream's device; builds it (seconds for the first one).
bool has_plan(const Stream& stream, const Shape& shape);
/// Enqueues it. Throws Error naming what cuDNN said.
void execute(Stream& stream, const Shape& shape, const Buffers& buffers);

}  // namespace hadal::kernels::cuda::cudnn
