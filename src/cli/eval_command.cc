// hadal eval CKPT --data FILE: loss, perplexity, bits per byte, MTP acceptance.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/model_flags.h"
#include "comm/single.h"
#include "core/copy.h"
#include "data/hold_out.h"
#include "data/open_source.h"
#include "train/evaluate.h"
#include "train/run_data.h"

namespace hadal::cli {

int eval_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  ModelFlags model_flags;
  OutputFlags output;
  std::string data;
  std::int64_t max_tokens = std::int64_t{1} << 20;
  std::int64_t sequence_length = 0;
  std::int64_t batch = 8;
  bool held_out = false;
  add_model_flags(app, model_flags);
  add_output_flags(app, output);
  app.add_option("--data", data, "token file, or Megatron prefix")->required();
  app.add_option("--max-tokens", max_tokens, "tokens to evaluate, at most")->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 50));
  app.add_option("--sequence-length", sequence_length, "tokens per row (default: as trained)")->check(CLI::Range(1, 1 << 24));
  app.add_option("--batch", batch, "rows per forward pass")->check(CLI::Range(1, 1 << 16));
  app.add_flag("--held-out", held_out, "only the documents that training held out (data.validation_fraction of the run)");
  parse_arguments(app, "eval", arguments);

  comm::SingleCommunicator world;
  const train::LoadedRun loaded = load_run(model_flags, world);
  data::TokenSourcePtr source = data::open_token_source(data);
  if (source->vocab_size() > static_cast<std::uint64_t>(loaded.config.model.vocab_size)) {
    throw UserError("{}: ids up to {}, but the model has {} rows", data, source->vocab_size() - 1, loaded.config.model.vocab_size);
  }
  if (held_out) source = data::hold_out(source, data::Part::kValidation, loaded.config.data.validation_fraction);
  if (sequence_length == 0) sequence_length = loaded.config.data.sequence_length;
  if (sequence_length > loaded.config.model.max_positions) {
    throw UserError("--sequence-length {}: model.max_positions is {}", sequence_length, loaded.config.model.max_positions);
  }
  const auto sampler = train::sequential_sampler({source}, sequence_length);
  Stream stream = stream_of(loaded.run->options().device);
  const train::EvaluationResult r = train::evaluate(*loaded.run, stream, *sampler, max_tokens, batch, loaded.tokenizer ? &*loaded.tokenizer : nullptr);
  if (r.tokens == 0) throw UserError("{}: none of its tokens counts as a target: its loss mask is all zero", data);
  std::printf("tokens            %lld\n", static_cast<long long>(r.tokens));
  std::printf("loss              %.6f nats per token\n", r.loss);
  std::printf("perplexity        %.4f\n", r.perplexity());
  std::printf("unigram entropy   %.6f nats per token (loss is %.1f %% of it)\n", r.unigram_entropy, 100 * r.loss / r.unigram_entropy);
  if (r.bits_per_byte > 0) std::printf("bits per byte     %.4f\n", r.bits_per_byte);
  if (loaded.config.model.mtp.depth > 0) {
    std::printf("MTP loss          %.6f nats per token\n", r.mtp_loss);
    std::printf("MTP acceptance    %.1f %%\n", 100 * r.acceptance);
  }
  nlohmann::ordered_json figures{{"tokens", r.tokens},
                                 {"loss", r.loss},
                                 {"perplexity", r.perplexity()},
                                 {"unigram_entropy", r.unigram_entropy},
                                 {"bits_per_byte", r.bits_per_byte},
                                 {"mtp_loss", r.mtp_loss},
                                 {"acceptance", r.acceptance}};
  write_figures(output, figures.dump(2));
  return 0;
}

}  // namespace hadal::cli
