// Cases of the flash attention tests on CUDA: buffers on both sides, forward and backward compared.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/flash_attention.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
using kernels::AttentionMask;
using kernels::FlashAttentionBackward;
using kernels::FlashAttentionForward;
using kernels::Heads;
using std::int64_t;

struct Case {
  int64_t batch, tokens, keys, heads, key_heads, width, shared, value;
  AttentionMask mask{};
  int64_t start = 0;
  int64_t gap = 0;  ///< unused elements before each head
};

inline AttentionMask blocks(int64_t length, int64_t stride) {
  return {.kind = AttentionMask::Kind::kBlocks, .block_length = length, .block_stride = stride};
}
inline AttentionMask window(int64_t width) { return {.window = width}; }

inline std::string name_of_case(const Case& c) {
  return fmt::format("B {} S {} Sk {} H {}/{} dims {}+{}/{} window {} blocks {}/{} start {} gap {}", c.batch, c.tokens, c.keys, c.heads, c.key_heads,
                     c.width, c.shared, c.value, c.mask.window, c.mask.block_length, c.mask.block_stride, c.start, c.gap);
}

/// What goes into attention and comes out of it. Gaps hold NaN in outputs, on both sides, so that a write there is an infinite error.
struct Buffers {
  Buffers(const Case& c, DType dtype, bool add)
      : gap(c.gap),
        q(Twin::normal(shape(c.batch * c.tokens, c.heads, c.width + c.shared), dtype, 1)),
        k(Twin::normal(shape(c.batch * c.keys, c.key_heads, c.width), dtype, 2)),
        k_shared(Twin::normal(shape(c.batch * c.keys, 1, c.shared), dtype, 3)),
        v(Twin::normal(shape(c.batch * c.keys, c.key_heads, c.value), dtype, 4)),
        d_o(Twin::normal(shape(c.batch * c.tokens, c.heads, c.value), dtype, 5)),
        o(Twin::output(shape(c.batch * c.tokens, c.heads, c.value), dtype)),
        lse(Twin::output({c.batch * c.tokens, c.heads}, accumulation_dtype(dtype))),
        d_q(Twin::output(q.shape(), dtype)),
        d_k(add ? Twin::normal(k.shape(), dtype, 6) : Twin::output(k.shape(), dtype)),
        d_k_shared(add ? Twin::normal(k_shared.shape(), dtype, 7) : Twin::output(k_shared.shape(), dtype)),
        d_v(add ? Twin::normal(v.shape(), dtype, 8) : Twin::output(v.shape(), dtype)) {}

  Shape shape(int64_t tokens, int64_t heads, int64_t width) const { return {tokens, heads, width + gap}; }
  Heads of(Side side, Twin& x) const {
    const int64_t heads = x.shape()[1], total = x.shape()[2];
    return kernels::heads_of(side(x), heads, total, gap, total - gap);
  }

  int64_t gap;
  Twin q, k, k_shared, v, d_o, o, lse, d_q, d_k, d_k_shared, d_v;
};

inline double scale_of(const Case& c) { return 1.0 / std::sqrt(static_cast<double>(c.width + c.shared)); }

// P and dS are rounded to bf16 between the two products, and the result once more; sums are f32.
inline double tolerance(const Case& c, DType dtype) { return dtype == DType::kBf16 ? 8e-3 : tolerance_of(dtype, c.keys * 2 + c.width + c.shared); }

/// x.agrees(), but absolutely where the reference is zero but for its rounding (one visible key: p = 1, so that d_p = delta).
inline ::testing::AssertionResult gradient_agrees(Twin& x, double allowed) {
  double largest = 0, device_largest = 0;
  for (const double value : std::span(static_cast<const double*>(x.host().data), static_cast<std::size_t>(x.host().numel()))) {
    largest = std::max(largest, std::abs(value));  // NaN, in gaps, is not larger
  }
  if (largest > 1e-9) return x.agrees(allowed);
  Stream gpu = stream_of(kGpu);
  const Tensor got = to_host(gpu, x.device());
  for (int64_t i = 0; i < got.numel(); ++i) {
    const double value = got.dtype() == DType::kBf16 ? to_float(got.as<Bf16>()[i]) : got.as<float>()[i];
    const double wanted = static_cast<const double*>(x.host().data)[i];
    if (std::isnan(value) != std::isnan(wanted)) return ::testing::AssertionFailure() << "element " << i << ": " << value << " for " << wanted;
    device_largest = std::max(device_largest, std::abs(value));
  }
  if (device_largest <= allowed) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "up to " << device_largest << " where all is zero";
}

inline void forward(const Case& c, Buffers& x) {
  run_on_both({&x.q, &x.k, &x.k_shared, &x.v}, {&x.o, &x.lse}, [&](Stream& stream, Side side) {
    run(stream, FlashAttentionForward{.batch = c.batch,
                                      .q = x.of(side, x.q),
                                      .k = x.of(side, x.k),
                                      .k_shared = c.shared > 0 ? x.of(side, x.k_shared) : Heads{},
                                      .v = x.of(side, x.v),
                                      .mask = c.mask,
                                      .query_start = c.start,
                                      .scale = scale_of(c),
                                      .o = x.of(side, x.o),
                                      .lse = side(x.lse)});
  });
}

inline void expect_forward_and_backward_agree(const Case& c, DType dtype, bool add = false) {
  SCOPED_TRACE(name_of_case(c) + " " + std::string(name_of(dtype)));
  Buffers x(c, dtype, add);
  forward(c, x);
  const double allowed = tolerance(c, dtype);
  EXPECT_TRUE(x.o.agrees(allowed)) << "o";
  EXPECT_TRUE(x.lse.agrees(dtype == DType::kBf16 ? 1e-4 : allowed)) << "lse";

  // The backward sees the same o and lse on both sides.
  Stream cpu(kCpu);
  Twin o(to_device(cpu, x.o.host(), kCpu), dtype), lse(to_device(cpu, x.lse.host(), kCpu), accumulation_dtype(dtype));
  std::vector<Twin*> changed{&x.d_q, &x.d_k, &x.d_v};
  if (c.shared > 0) changed.push_back(&x.d_k_shared);
  run_on_both({&x.q, &x.k, &x.k_shared, &x.v, &x.d_o, &o, &lse}, changed, [&](Stream& stream, Side side) {
    run(stream, FlashAttentionBackward{.batch = c.batch,
                                       .q = x.of(side, x.q),
                                       .k = x.of(side, x.k),
                                       .k_shared = c.shared > 0 ? x.of(side, x.k_shared) : Heads{},
                                       .v = x.of(side, x.v),
                                       .mask = c.mask,
                                       .query_start = c.start,
                                       .scale = scale_of(c),
                                       .o = x.of(side, o),
                                       .lse = side(lse),
                                       .d_o = x.of(side, x.d_o),
                                       .d_q = x.of(side, x.d_q),
                                       .d_k = x.of(side, x.d_k),
                                       .d_k_shared = c.shared > 0 ? x.of(side, x.d_k_shared) : Heads{},
                                       .d_v = x.of(side, x.d_v),
                                       .add_to_keys = add});
  });
  EXPECT_TRUE(gradient_agrees(x.d_q, allowed)) << "d_q";
  EXPECT_TRUE(gradient_agrees(x.d_k, allowed)) << "d_k";
  EXPECT_TRUE(gradient_agrees(x.d_v, allowed)) << "d_v";
  if (c.shared > 0) {
    EXPECT_TRUE(gradient_agrees(x.d_k_shared, allowed)) << "d_k_shared";
  }
}

/// A bad number must reach the loss: the maximum of a row may drop it, its probability may not.
inline void expect_nan_is_not_swallowed(DType dtype, double allowed) {
  const Case c{1, 150, 150, 1, 1, 128, 0, 128};
  Buffers x(c, dtype, false);
  Tensor keys = Tensor::empty(x.k.shape(), DType::kF64);
  std::copy_n(static_cast<const double*>(x.k.host().data), keys.numel(), keys.as<double>());
  keys.as<double>()[c.width + 3] = std::numeric_limits<double>::quiet_NaN();
  Twin bad(std::move(keys), dtype);
  std::swap(x.k, bad);
  forward(c, x);
  Stream gpu = stream_of(kGpu);
  const Tensor lse = to_host(gpu, x.lse.device());
  EXPECT_TRUE(std::isfinite(lse.as<float>()[0]));
  for (int64_t t = 1; t < c.tokens; ++t) EXPECT_TRUE(std::isnan(lse.as<float>()[t])) << t;
  EXPECT_TRUE(x.o.agrees(allowed));  // NaN where the CPU has it, and only there
}

inline std::vector<Case> latent_cases() {
  return {
      {1, 1, 1, 2, 2, 128, 64, 128},
      {2, 7, 7, 3, 3, 128, 64, 128},
      {1, 65, 65, 4, 4, 128, 64, 128},
      {2, 200, 200, 2, 2, 128, 64, 128},
      {1, 257, 257, 2, 2, 128, 64, 128},
      {1, 513, 513, 2, 2, 128, 64, 128},
      {1, 513, 513, 3, 3, 16, 8, 16},
      {2, 65, 65, 2, 2, 24, 8, 40},
      {1, 200, 200, 2, 2, 32, 16, 32},
  };
}
inline std::vector<Case> grouped_cases() {
  return {
      {1, 1, 1, 8, 2, 128, 0, 128},
      {2, 65, 65, 8, 2, 128, 0, 128},
      {1, 257, 257, 8, 2, 128, 0, 128},
      {1, 513, 513, 4, 1, 64, 0, 64},
      {1, 200, 200, 8, 2, 24, 0, 16},
      {2, 130, 130, 6, 3, 40, 0, 24},
      {1, 200, 200, 8, 2, 40, 8, 24},
  };
}
inline std::vector<Case> window_cases() {
  return {
      {1, 150, 150, 2, 2, 128, 64, 128, window(1)},
      {2, 200, 200, 2, 1, 128, 0, 128, window(17)},
      {1, 513, 513, 2, 2, 128, 64, 128, window(140)},
      {1, 513, 513, 2, 1, 64, 0, 64, window(128)},
      {1, 1500, 1500, 2, 2, 128, 64, 128, window(900)},  // ranges of queries of which keys see the first, the last, or some between
  };
}
inline std::vector<Case> block_cases() {
  return {
      {1, 200, 11, 4, 2, 128, 0, 128, blocks(32, 16)},
      {2, 65, 3, 2, 2, 128, 64, 128, blocks(32, 16)},
      {1, 513, 255, 2, 1, 64, 0, 64, blocks(4, 2)},
      {1, 600, 299, 2, 2, 128, 64, 128, blocks(4, 2)},
      {2, 5, 0, 2, 2, 128, 0, 128, blocks(16, 8)},    // no compressed key at all
      {1, 40, 3, 2, 2, 128, 64, 128, blocks(60, 8)},  // keys that nobody sees
      // Few keys under many queries: cut by heads, three of a group too, and by ranges of queries.
      {1, 700, 42, 6, 2, 128, 0, 128, blocks(32, 16)},
      {1, 900, 230, 4, 1, 128, 64, 128, blocks(8, 4)},
      {2, 1300, 400, 3, 1, 64, 0, 64, blocks(16, 4), 300},
      // More tiles than multiprocessors: several of a block of threads, some without keys.
      {2, 1250, 77, 16, 2, 128, 0, 128, blocks(32, 16)},
      {1, 1290, 71, 16, 2, 128, 64, 128, blocks(160, 16)},
  };
}
inline std::vector<Case> start_cases() {
  return {
      {2, 21, 64, 3, 3, 128, 64, 128, {}, 43},
      {1, 130, 300, 2, 2, 128, 64, 128, {}, 170},
      {1, 257, 700, 4, 2, 128, 0, 128, {}, 300},
      {1, 140, 260, 4, 2, 64, 0, 64, window(121), 120},
      {2, 30, 40, 2, 2, 128, 64, 128, blocks(8, 4), 140},
  };
}
inline std::vector<Case> strided_cases() {
  return {
      {2, 200, 200, 2, 2, 128, 64, 128, {}, 0, 8},
      {1, 200, 200, 4, 2, 128, 0, 128, window(33), 0, 64},
      {1, 130, 130, 2, 2, 24, 8, 16, {}, 0, 3},
  };
}
inline std::vector<Case> odd_cases() {
  return {
      {1, 70, 70, 5, 1, 7, 3, 5},
      {1, 65, 65, 2, 2, 192, 0, 192},
      {1, 33, 33, 2, 1, 250, 0, 130},
  };
}
inline std::vector<Case> adding_cases() {
  return {
      {1, 200, 200, 2, 2, 128, 64, 128},
      {2, 65, 65, 4, 2, 128, 0, 128},
      {1, 70, 70, 2, 2, 20, 4, 12},
      {1, 700, 300, 5, 1, 128, 64, 128, blocks(16, 2)},
  };
}

inline void expect_agree(const std::vector<Case>& cases, DType dtype, bool add = false) {
  for (const Case& c : cases) expect_forward_and_backward_agree(c, dtype, add);
}

// Decoding over the latent cache: one or a few queries, every head over the same keys, values the first columns of the keys.
inline void expect_absorbed_form_agrees(DType dtype) {
  for (const Case& c : {Case{1, 1, 300, 16, 1, 576, 0, 512, {}, 299}, Case{2, 3, 129, 5, 1, 576, 0, 512, {}, 126},
                        Case{1, 1, 2000, 128, 1, 576, 0, 512, {}, 1999}, Case{1, 4, 90, 4, 1, 40, 0, 32, window(31), 86}}) {
    SCOPED_TRACE(name_of_case(c) + " " + std::string(name_of(dtype)));
    Buffers x(c, dtype, false);
    const auto values = [&](Side side) {
      Heads keys = x.of(side, x.k);
      keys.width = c.value;
      return keys;
    };
    run_on_both({&x.q, &x.k}, {&x.o, &x.lse}, [&](Stream& stream, Side side) {
      run(stream, FlashAttentionForward{.batch = c.batch,
                                        .q = x.of(side, x.q),
                                        .k = x.of(side, x.k),
                                        .v = values(side),
                                        .mask = c.mask,
                                        .query_start = c.start,
                                        .scale = scale_of(c),
                                        .o = x.of(side, x.o),
                                        .lse = side(x.lse)});
    });
    EXPECT_TRUE(x.o.agrees(tolerance(c, dtype)));
    EXPECT_TRUE(x.lse.agrees(dtype == DType::kBf16 ? 1e-4 : tolerance(c, dtype)));
    run_on_both({&x.q, &x.k, &x.d_o}, {&x.d_q, &x.d_k, &x.d_v}, [&](Stream& stream, Side side) {
      run(stream, FlashAttentionBackward{.batch = c.batch,
                                         .q = x.of(side, x.q),
                                         .k = x.of(side, x.k),
                                         .v = values(side),
                                         .mask = c.mask,
                                         .query_start = c.start,
                                         .scale = scale_of(c),
                                         .o = x.of(side, x.o),
                                         .lse = side(x.lse),
                                         .d_o = x.of(side, x.d_o),
                                         .d_q = x.of(side, x.d_q),
                                         .d_k = x.of(side, x.d_k),
                                         .d_v = x.of(side, x.d_v)});
    });
    EXPECT_TRUE(x.d_q.agrees(2 * tolerance(c, dtype)));  // o too was rounded
    EXPECT_TRUE(x.d_k.agrees(2 * tolerance(c, dtype)));
    EXPECT_TRUE(x.d_v.agrees(2 * tolerance(c, dtype)));
  }
}

}  // namespace hadal::test
