// Whole attention layers: a training step's forward and backward, and one token of decoding, at the sizes of configs/model/tiny.yaml
// and small.yaml. Dense layers beside their sparse forms.
#include <fmt/core.h>

#include <string>

#include "bench.h"
#include "nn/attention/make_attention.h"

namespace hadal::bench {
namespace {

struct Size {
  const char* name;
  std::int64_t hidden, heads, q_rank, rank, nope, rope, value, batch, seq;
};

nn::AttentionOptions options_of(const Size& size, bool mla, bool sparse, nn::LatentMode mode) {
  nn::AttentionOptions o;
  o.kind = mla ? nn::AttentionOptions::Kind::kMla : nn::AttentionOptions::Kind::kGqa;
  o.hidden_size = size.hidden;
  o.num_heads = size.heads;
  o.q_lora_rank = size.q_rank;
  o.kv_lora_rank = size.rank;
  o.qk_nope_head_dim = size.nope;
  o.qk_rope_head_dim = size.rope;
  o.v_head_dim = size.value;
  o.num_kv_heads = size.heads / 4;
  o.head_dim = size.nope + size.rope;
  o.max_positions = 4096;
  o.latent_mode = mode;
  if (sparse) o.nsa = nn::NsaOptions{.block_length = 16, .block_stride = 8, .select_block = 16, .num_selected = 8, .window = 64};
  return o;
}

struct Bench {
  Bench(const Size& size, bool mla, bool sparse, nn::LatentMode mode)
      : options(options_of(size, mla, sparse, mode)), layer(nn::make_attention(options, "a", nn::make_rope_table(options))) {
    layer->collect(parameters);
    for (nn::Parameter* parameter : parameters) parameter->initialize(1);
  }

  nn::AttentionOptions options;
  std::unique_ptr<nn::Attention> layer;
  nn::ParameterList parameters;
  Stream stream;
};

void train(benchmark::State& state, const Size& size, bool mla, bool sparse, nn::LatentMode mode) {
  Bench bench(size, mla, sparse, mode);
  const std::int64_t rows = size.batch * size.seq;
  Tensor x = filled<float>({rows, size.hidden}, 1), d_y = filled<float>({rows, size.hidden}, 2);
  nn::Context ctx{bench.stream, size.batch, size.seq};
  const double seconds = best_of(state, [&] {
    nn::SavedPtr saved;
    bench.layer->forward(ctx, x, &saved);
    bench.layer->backward_input(ctx, d_y, *saved);
    bench.layer->backward_weight(ctx, *saved);
  });
  state.counters["tokens/s"] = static_cast<double>(rows) / seconds;
}

void decode(benchmark::State& state, const Size& size, bool mla, bool sparse, std::int64_t context) {
  Bench bench(size, mla, sparse, nn::LatentMode::kAuto);
  Tensor x = filled<float>({context, size.hidden}, 1);
  const auto cache = bench.layer->make_cache(context + 1);
  nn::Context ctx{bench.stream, 1, 1};
  bench.layer->decode(ctx, x, *cache);
  const double seconds = best_of(state, [&] {
    bench.layer->decode(ctx, x.view().rows(0, 1), *cache);
    cache->truncate(context);
  });
  state.counters["tokens/s"] = 1 / seconds;
}

const bool registered = [] {
  static constexpr Size kTiny{"tiny", 128, 4, 0, 64, 32, 16, 32, 8, 256};
  static constexpr Size kSmall{"small", 512, 8, 256, 256, 64, 64, 64, 1, 2048};
  for (const Size& size : {kTiny, kSmall}) {
    for (const bool mla : {true, false}) {
      for (const bool sparse : {false, true}) {
        const std::string kind = std::string(sparse ? "nsa_" : "") + (mla ? "mla" : "gqa");
        const auto add = [&](nn::LatentMode mode, const char* suffix) {
          benchmark::RegisterBenchmark(fmt::format("attention_layer/train/{}/{}{}", size.name, kind, suffix).c_str(),
                                       [=](benchmark::State& state) { train(state, size, mla, sparse, mode); })
              ->UseManualTime()->Iterations(size.hidden > 256 ? 5 : 30)->Unit(benchmark::kMicrosecond);
        };
        add(nn::LatentMode::kMha, "");
        if (mla && sparse) add(nn::LatentMode::kMqa, "/selected_in_latent");
        benchmark::RegisterBenchmark(fmt::format("attention_layer/decode/{}/{}", size.name, kind).c_str(),
                                     [=](benchmark::State& state) { decode(state, size, mla, sparse, size.seq); })
            ->UseManualTime()->Iterations(200)->Unit(benchmark::kMicrosecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace hadal::bench
