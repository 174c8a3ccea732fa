// hadal generate CKPT --prompt TEXT: streams text to stdout, figures to stderr.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <cstdio>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/model_flags.h"
#include "core/file.h"
#include "core/log.h"
#include "infer/generator.h"

namespace hadal::cli {
namespace {

struct GenerateFlags {
  ModelFlags model;
  OutputFlags output;
  std::string prompt;
  std::string prompt_file;
  std::string stop;
  bool ids = false;
  infer::GenerateOptions options;
};

GenerateFlags parse(const std::vector<std::string>& arguments) {
  CLI::App app;
  GenerateFlags flags;
  add_model_flags(app, flags.model);
  add_output_flags(app, flags.output);
  auto* prompt = app.add_option("--prompt", flags.prompt, "text to continue; empty: from an end-of-text token, which training texts follow");
  app.add_option("--prompt-file", flags.prompt_file, "file that holds the prompt")->excludes(prompt);
  app.add_option("--max-tokens", flags.options.max_tokens, "tokens to generate, at most")->check(CLI::Range(1, 1 << 24));
  app.add_option("--temperature", flags.options.sampling.temperature, "0 is greedy; below 1 is safer, above 1 wilder");
  app.add_option("--top-k", flags.options.sampling.top_k, "sample among the k likeliest tokens; 0: all");
  app.add_option("--top-p", flags.options.sampling.top_p, "sample among the likeliest tokens that hold this probability");
  app.add_option("--seed", flags.options.sampling.seed, "same seed, same text");
  app.add_option("--stop", flags.stop, "end after this text");
  app.add_flag("--ids", flags.ids, "print token ids instead of text");
  app.add_flag("--speculate", flags.options.speculate, "let the MTP module draft tokens; same distribution, fewer passes");
  parse_arguments(app, "generate", arguments);
  return flags;
}

/// Prints tokens as they come, and notices the stop text in the stream.
class Printer {
 public:
  Printer(const tokenizer::Tokenizer& tokenizer, std::string stop, bool ids)
      : decoder_(tokenizer), vocab_size_(tokenizer.vocab_size()), stop_(std::move(stop)), ids_(ids) {}

  /// False when the stop text is complete.
  bool print(std::int32_t token) {
    if (ids_) {
      std::printf(first_ ? "%d" : " %d", token);
      first_ = false;
    }
    // A model's table may be padded above the tokenizer's ids: such a token has no text.
    const std::string text = token < vocab_size_ ? decoder_.push(token) : std::string();
    if (!ids_) std::fwrite(text.data(), 1, text.size(), stdout);
    tail_ += text;
    std::fflush(stdout);
    const bool stopped = !stop_.empty() && tail_.find(stop_) != std::string::npos;
    if (tail_.size() > 2 * stop_.size() + 64) tail_.erase(0, tail_.size() - stop_.size());
    return !stopped;
  }

  void finish() {
    if (!ids_) {
      const std::string rest = decoder_.finish();
      std::fwrite(rest.data(), 1, rest.size(), stdout);
    }
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  tokenizer::IncrementalDecoder decoder_;
  std::int32_t vocab_size_;
  std::string stop_, tail_;
  bool ids_;
  bool first_ = true;
};

}  // namespace

int generate_command(const std::vector<std::string>& arguments) {
  const GenerateFlags flags = parse(arguments);
  train::LoadedModel loaded = load_model(flags.model);
  const tokenizer::Tokenizer& tokenizer = train::required_tokenizer(loaded);
  const std::string text = flags.prompt_file.empty() ? flags.prompt : read_file(flags.prompt_file, 1 << 26);
  std::vector<std::int32_t> prompt = tokenizer.encode(text);
  // Training documents follow an eos: that is the one token after which a text starts.
  if (prompt.empty()) prompt.push_back(tokenizer.eos_id() >= 0 ? tokenizer.eos_id() : 0);

  Printer printer(tokenizer, flags.stop, flags.ids);
  if (!flags.ids) std::fwrite(text.data(), 1, text.size(), stdout);
  infer::Generator generator(*loaded.model);
  const infer::GenerateResult result = generator.generate(prompt, flags.options, [&](std::int32_t token) {
    if (token == tokenizer.eos_id()) return false;
    return printer.print(token);
  });
  printer.finish();
  // The first token is the prefill's.
  const std::size_t decoded = result.tokens.empty() ? 0 : result.tokens.size() - 1;
  const double tokens_per_s = result.seconds > 0 ? static_cast<double>(decoded) / result.seconds : 0.0;
  const double acceptance = result.drafts > 0 ? static_cast<double>(result.accepted) / static_cast<double>(result.drafts) : 0.0;
  log_info("{} tokens, {:.1f} tokens/s, prompt of {} in {:.3f} s, cache {:.0f} bytes per token", result.tokens.size(), tokens_per_s, prompt.size(),
           result.prefill_seconds, result.cache_bytes_per_token);
  if (flags.options.speculate) log_info("speculation: {} of {} drafts accepted ({:.1f} %)", result.accepted, result.drafts, 100 * acceptance);
  nlohmann::ordered_json figures{{"tokens", result.tokens.size()},
                                 {"tokens_per_s", tokens_per_s},
                                 {"prefill_seconds", result.prefill_seconds},
                                 {"cache_bytes_per_token", result.cache_bytes_per_token},
                                 {"acceptance", acceptance}};
  write_figures(flags.output, figures.dump(2));
  return 0;
}

}  // namespace hadal::cli
