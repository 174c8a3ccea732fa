// Guards: every layer and a whole model with everything in it, on the device against the CPU in f64: outputs and all gradients, in f32 and
// bf16. test_device runs the same tests on a fake device.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "core/convert.h"
#include "core/copy.h"
#include "model/model.h"
#include "nn/attention/make_attention.h"
#include "nn/feed_forward.h"
#include "nn/moe/moe_layer.h"
#include "tests/support/small_model.h"
#include "tests/support/gradient_check.h"

namespace hadal {
namespace {

constexpr Device kGpu{DeviceKind::kCuda, 0};

using nn::AttentionOptions;

Tensor on_host(ConstView values) {
  Stream stream = stream_of(values.device);
  const Tensor stored = to_host(stream, values);
  Tensor exact = Tensor::empty(values.shape, DType::kF64);
  convert_floats(stored, exact);
  return exact;
}

/// `values` (f64, host) rounded, on the device; `values` become what was rounded.
Tensor upload(Tensor& values, DType dtype) {
  Tensor rounded = Tensor::empty(values.shape(), dtype);
  convert_floats(values, rounded);
  convert_floats(rounded, values);
  Stream stream = stream_of(kGpu);
  return to_device(stream, rounded, kGpu);
}

/// The parameters of the device's model, as they are there, into those of the CPU's.
void copy_values(const nn::ParameterList& from, const nn::ParameterList& to) {
  Stream host;
  ASSERT_EQ(from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    const Tensor values = on_host(from[i]->value());
    Tensor stored = Tensor::empty(values.shape(), to[i]->dtype());
    convert_floats(values, stored);
    copy(host, stored, to[i]->value());
  }
}

/// Root of sum (a - b)^2 over sum b^2.
double error(ConstView device, ConstView reference) {
  const Tensor a = on_host(device), b = on_host(reference);
  double difference = 0, size = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double d = a.as<double>()[i] - b.as<double>()[i];
    difference += d * d;
    size += b.as<double>()[i] * b.as<double>()[i];
  }
  return size == 0 ? std::sqrt(difference) : std::sqrt(difference / size);
}

using MakeLayer = std::function<std::unique_ptr<nn::Layer>(DType, Device)>;

/// Forward and backward on both sides; outputs and every gradient differ by at most `tolerance` in the root of the mean square.
void expect_agreement(const MakeLayer& make, std::int64_t batch, std::int64_t seq, std::int64_t width, DType dtype, double tolerance) {
  const auto device_layer = make(dtype, kGpu), host_layer = make(DType::kF64, kCpu);
  nn::ParameterList on_device, on_cpu;
  device_layer->collect(on_device);
  host_layer->collect(on_cpu);
  for (nn::Parameter* parameter : on_device) parameter->initialize(5);
  copy_values(on_device, on_cpu);
  Tensor x = test::normal_tensor({batch * seq, width}, 1), d_y = test::normal_tensor({batch * seq, width}, 2);
  const Tensor device_x = upload(x, dtype), device_d_y = upload(d_y, dtype);
  const auto run = [&](nn::Layer& layer, Device device, ConstView in, ConstView d_out) {
    Stream stream = stream_of(device);
    nn::Context ctx{.stream = stream, .batch = batch, .seq = seq};
    nn::SavedPtr saved;
    Tensor y = layer.forward(ctx, in, &saved);
    Tensor d_x = layer.backward_input(ctx, d_out, *saved);
    layer.backward_weight(ctx, *saved);
    return std::pair(std::move(y), std::move(d_x));
  };
  const auto [y, d_x] = run(*device_layer, kGpu, device_x, device_d_y);
  const auto [expected_y, expected_d_x] = run(*host_layer, kCpu, x, d_y);
  EXPECT_EQ(y.dtype(), dtype);
  EXPECT_LE(error(y, expected_y), tolerance) << "y";
  EXPECT_LE(error(d_x, expected_d_x), tolerance) << "d_x";
  for (std::size_t i = 0; i < on_device.size(); ++i) {
    if (!on_device[i]->options().trainable) continue;
    EXPECT_EQ(on_device[i]->grad().dtype, DType::kF32) << on_device[i]->name();
    EXPECT_LE(error(on_device[i]->grad(), on_cpu[i]->grad()), tolerance) << on_device[i]->name();
  }
}

AttentionOptions attention(AttentionOptions::Kind kind, bool sparse, bool tie_up, nn::LatentMode mode) {
  AttentionOptions o;
  o.kind = kind;
  o.hidden_size = 48;
  o.num_heads = 4;
  o.v_head_dim = 16;
  o.q_lora_rank = 24;
  o.kv_lora_rank = 32;
  o.qk_nope_head_dim = 16;
  o.qk_rope_head_dim = 8;
  o.latent_mode = mode;
  o.num_kv_heads = 2;
  o.head_dim = 24;
  o.max_positions = 128;
  o.init_std = 0.2;
  if (sparse) {
    o.nsa = nn::NsaOptions{.block_length = 8, .block_stride = 4, .select_block = 8, .num_selected = 4, .window = 11, .tie_up = tie_up,
                           .num_select_groups = 2};
  }
  return o;
}

MakeLayer make_attention_layer(AttentionOptions options) {
  return [options](DType dtype, Device device) -> std::unique_ptr<nn::Layer> {
    AttentionOptions o = options;
    o.dtype = dtype;
    o.device = device;
    return nn::make_attention(o, "model.layers.0.self_attn", nn::make_rope_table(o));
  };
}

constexpr double kF32 = 2e-5, kBf16 = 3e-2;

TEST(LayersOnCuda, DenseAttention) {
  for (const auto kind : {AttentionOptions::Kind::kMla, AttentionOptions::Kind::kGqa}) {
    const MakeLayer make = make_attention_layer(attention(kind, false, false, nn::LatentMode::kAuto));
    expect_agreement(make, 2, 45, 48, DType::kF32, kF32);
    expect_agreement(make, 2, 45, 48, DType::kBf16, kBf16);
  }
}

TEST(LayersOnCuda, SparseAttention) {
  expect_agreement(make_attention_layer(attention(AttentionOptions::Kind::kGqa, true, false, nn::LatentMode::kAuto)), 2, 61, 48, DType::kF32, kF32);
  for (const auto mode : {nn::LatentMode::kMha, nn::LatentMode::kMqa}) {
    for (const bool tie_up : {false, true}) {
      expect_agreement(make_attention_layer(attention(AttentionOptions::Kind::kMla, true, tie_up, mode)), 2, 61, 48, DType::kF32, kF32);
    }
  }
}

TEST(LayersOnCuda, FeedForward) {
  const MakeLayer make = [](DType dtype, Device device) {
    return std::make_unique<nn::FeedForward>("model.layers.0.mlp", 40, 72, 0.3, Storage(dtype, device));
  };
  expect_agreement(make, 1, 77, 40, DType::kF32, kF32);
  expect_agreement(make, 1, 77, 40, DType::kBf16, kBf16);
}

/// x in bf16 is exact on both sides and the router works in f32: the same experts are chosen.
TEST(LayersOnCuda, MixtureOfExperts) {
  const MakeLayer make = [](DType dtype, Device device) {
    nn::MoeOptions o;
    o.hidden_size = 32;
    o.num_experts = 16;
    o.num_shared = 1;
    o.width = 24;
    o.router = {.top_k = 4, .num_groups = 4, .topk_groups = 2, .normalize = true, .scaling = 2.5};
    o.balance.sequence_alpha = 0.01;
    o.init_std = 0.3;
    o.dtype = dtype;
    o.device = device;
    return std::make_unique<nn::MoeLayer>("model.layers.1.mlp", o);
  };
  expect_agreement(make, 2, 50, 32, DType::kF32, kF32);
  expect_agreement(make, 2, 50, 32, DType::kBf16, kBf16);
}

/// Embedding, blocks, head and two MTP modules, with their losses.
TEST(LayersOnCuda, WholeModel) {
  for (const auto kind : {AttentionKind::kMla, AttentionKind::kGqa}) {
    model::ModelOptions options = test::small_model(kind, SparseKind::kNsa);
    model::Model on_cpu(options);
    options.dtype = DType::kF32;
    options.device = kGpu;
    model::Model on_device(options);
    on_device.initialize(4);
    copy_values(on_device.parameters(), on_cpu.parameters());
    Stream host, stream = stream_of(kGpu);
    const auto weights_of = [&](model::Prediction& p, DType dtype) {
      for (Tensor* ids : {&p.inputs, &p.targets}) {
        if (ids->defined()) *ids = to_device(stream, *ids, kGpu);
      }
      p.weights = upload(p.weights, dtype);
    };
    const model::MicroBatch reference = test::make_micro_batch(options, 2, 23);
    model::MicroBatch uploaded = test::make_micro_batch(options, 2, 23);
    uploaded.tokens = to_device(stream, uploaded.tokens, kGpu);
    weights_of(uploaded.main, DType::kF32);
    for (model::Prediction& prediction : uploaded.mtp) weights_of(prediction, DType::kF32);
    const model::Losses losses = on_device.forward_backward(stream, uploaded), expected = on_cpu.forward_backward(host, reference);
    EXPECT_NEAR(losses.main, expected.main, 1e-5 * expected.main);
    for (std::size_t k = 0; k < expected.mtp.size(); ++k) EXPECT_NEAR(losses.mtp[k], expected.mtp[k], 1e-5 * expected.mtp[k]);
    const nn::ParameterList device_parameters = on_device.parameters(), parameters = on_cpu.parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters[i]->options().trainable) continue;
      EXPECT_LE(error(device_parameters[i]->grad(), parameters[i]->grad()), 1e-4) << parameters[i]->name();
    }
  }
}

}  // namespace
}  // namespace hadal
