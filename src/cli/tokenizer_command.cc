// hadal tokenizer train | encode | decode | inspect (spec/cli.md).
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/tokenizer_streams.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "tokenizer/train.h"

namespace hadal::cli {
namespace {

using tokenizer::Tokenizer;

struct TrainFlags {
  std::vector<std::string> inputs;
  std::string pre_tokenizer = "deepseek-v3";
  std::vector<std::string> special_tokens;
  std::string bos, eos, pad;
  std::int64_t vocab_size = 0;
  std::int64_t min_frequency = 0;
  std::int64_t max_token_length = 0;
  std::string out;
};

struct StreamFlags {
  std::string tokenizer;
  std::string input = "-";
  bool whole = false;
  bool add_bos = false;
};

// At most one line a second, and the last one.
class ProgressLines {
 public:
  void operator()(const tokenizer::TrainProgress& progress) {
    const auto now = std::chrono::steady_clock::now();
    const bool last = progress.total > 0 && progress.current >= progress.total;
    if (!last && now - shown_ < std::chrono::seconds(1)) return;
    shown_ = now;
    if (progress.stage == "read") {
      log_info("reading text: {:.1f} MB", static_cast<double>(progress.current) * 1e-6);
    } else {
      log_info("merging pairs: {} of {}", progress.current, progress.total);
    }
  }

 private:
  std::chrono::steady_clock::time_point shown_ = std::chrono::steady_clock::now();
};

// The name that has the role when nothing else is said: Hadal's own when it is in the list, else the token in that place.
std::string role_of(const std::string& flag, const std::string& own, std::size_t place, const std::vector<std::string>& tokens) {
  if (!flag.empty()) return flag;
  if (std::find(tokens.begin(), tokens.end(), own) != tokens.end()) return own;
  return place < tokens.size() ? tokens[place] : std::string();
}

void run_train(const TrainFlags& flags, const OutputFlags& output) {
  tokenizer::TrainOptions options;
  options.vocab_size = flags.vocab_size;
  options.min_frequency = flags.min_frequency;
  options.max_token_length = flags.max_token_length;
  options.pre_tokenizer = *tokenizer::pre_tokenizer_kind_of(flags.pre_tokenizer);
  if (!flags.special_tokens.empty()) options.special_tokens = flags.special_tokens;
  options.bos_token = role_of(flags.bos, "<|bos|>", 0, options.special_tokens);
  options.eos_token = role_of(flags.eos, "<|eos|>", 1, options.special_tokens);
  options.pad_token = role_of(flags.pad, "<|pad|>", 2, options.special_tokens);
  if (!output.quiet) options.progress = ProgressLines();

  const std::vector<std::filesystem::path> paths(flags.inputs.begin(), flags.inputs.end());
  tokenizer::TrainStatistics statistics;
  const Tokenizer trained = tokenizer::train(options, read_text_files(paths, options.pre_tokenizer), &statistics);
  trained.save(flags.out);
  if (statistics.replaced > 0) {
    log_warning("{} invalid UTF-8 sequences in the input were read as U+FFFD", statistics.replaced);
  }
  if (std::cmp_less(trained.vocab_size(), options.vocab_size)) {
    log_warning("only {} of {} tokens: no pair is left to merge; more text gives more", trained.vocab_size(), options.vocab_size);
  }
  log_info("{}: {} tokens, {} merges from {:.1f} MB in {:.2f} s ({:.1f} MB/s)", flags.out, trained.vocab_size(),
           statistics.merges, static_cast<double>(statistics.bytes) * 1e-6, statistics.seconds,
           static_cast<double>(statistics.bytes) * 1e-6 / statistics.seconds);
  const nlohmann::ordered_json figures = {{"pieces", statistics.pieces},   {"unique_pieces", statistics.unique_pieces},
                                          {"merges", statistics.merges},   {"vocab_size", trained.vocab_size()},
                                          {"bytes", statistics.bytes},     {"replaced", statistics.replaced},
                                          {"seconds", statistics.seconds}, {"hash", trained.hash()}};
  write_figures(output, figures.dump(2));
}

void run_inspect(const StreamFlags& flags, const OutputFlags& output) {
  const Tokenizer tok = Tokenizer::load(flags.tokenizer);
  nlohmann::ordered_json figures = {{"vocab_size", tok.vocab_size()},
                                    {"merges", tok.num_merges()},
                                    {"pre_tokenizer", name_of(tok.pre_tokenizer_kind())},
                                    {"hash", tok.hash()},
                                    {"bos_id", tok.bos_id()},
                                    {"eos_id", tok.eos_id()},
                                    {"pad_id", tok.pad_id()},
                                    {"added_tokens", nlohmann::ordered_json::array()}};
  for (const std::int32_t id : tok.added_token_ids()) {
    figures["added_tokens"].push_back({{"id", id}, {"content", tok.token_text(id)}, {"special", tok.is_special(id)}});
  }
  if (flags.input != "-") {
    const std::string text = read_file(flags.input, std::uint64_t{1} << 36);
    const std::string_view view = text;
    const auto start = std::chrono::steady_clock::now();
    const std::size_t tokens = tok.encode_all(std::span(&view, 1))[0].size();
    figures["bytes"] = text.size();
    figures["tokens"] = tokens;
    figures["bytes_per_token"] = static_cast<double>(text.size()) / static_cast<double>(std::max<std::size_t>(tokens, 1));
    figures["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  if (output.json_path != "-") {
    for (const auto& [key, value] : figures.items()) {
      if (key != "added_tokens") fmt::print("{:<16} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
    for (const auto& token : figures["added_tokens"]) {
      fmt::print("{:<16} {:<6} {}{}\n", "added token", token["id"].get<int>(), token["content"].get<std::string>(),
                 token["special"].get<bool>() ? "" : "  (not special)");
    }
  }
  write_figures(output, figures.dump(2));
}

CLI::App& add_stream_command(CLI::App& app, const char* name, const char* help, StreamFlags& flags) {
  CLI::App& command = *app.add_subcommand(name, help);
  command.add_option("--tokenizer", flags.tokenizer, "directory with tokenizer.json, or that file")->required();
  command.add_option("--input", flags.input, "file to read; - is stdin");
  command.add_flag("--whole", flags.whole, "all of the input is one text, not one a line");
  return command;
}

}  // namespace

int tokenizer_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.fallthrough();
  app.require_subcommand(1);
  OutputFlags output;
  add_output_flags(app, output);
  int threads = num_threads();
  app.add_option("--threads", threads, "threads to use")->check(CLI::Range(1, 4096))->capture_default_str();

  TrainFlags train_flags;
  CLI::App& train = *app.add_subcommand("train", "learn a vocabulary from text files");
  train.add_option("--input", train_flags.inputs, "text files, or directories of them")->required();
  train.add_option("--vocab-size", train_flags.vocab_size, "tokens, the special ones and 256 bytes included")->required();
  train.add_option("--pre", train_flags.pre_tokenizer, "how text is cut before merging")
      ->check(CLI::IsMember({"deepseek-v3", "gpt-2"}))
      ->capture_default_str();
  train.add_option("--special", train_flags.special_tokens,
                   "special tokens, ids from 0 in this order; without it: <|bos|> <|eos|> <|pad|> and <|fim_...|>");
  train.add_option("--bos", train_flags.bos, "special token that begins a text (else <|bos|>, or the first)");
  train.add_option("--eos", train_flags.eos, "special token that ends a document (else <|eos|>, or the second)");
  train.add_option("--pad", train_flags.pad, "special token for padding (else <|pad|>, or the third)");
  const CLI::Range natural(std::int64_t{0}, std::numeric_limits<std::int64_t>::max());
  train.add_option("--min-frequency", train_flags.min_frequency, "pairs seen less often are not merged")->check(natural);
  train.add_option("--max-token-length", train_flags.max_token_length, "tokens stay shorter than this many bytes; 0: no limit")
      ->check(natural);
  train.add_option("--out", train_flags.out, "directory for tokenizer.json and tokenizer_config.json")->required();

  StreamFlags encode_flags, decode_flags, inspect_flags;
  CLI::App& encode = add_stream_command(app, "encode", "text to ids, a line of ids for each line", encode_flags);
  bool json_lines = false;
  encode.add_flag("--json-lines", json_lines, "each line of the input is a JSON string, so that a text can hold line ends");
  encode.add_flag("--add-bos", encode_flags.add_bos, "each text begins with the tokenizer's bos token");
  CLI::App& decode = add_stream_command(app, "decode", "ids to text, bytes exact", decode_flags);
  CLI::App& inspect = *app.add_subcommand("inspect", "sizes, special tokens, bytes per token");
  inspect.add_option("DIR", inspect_flags.tokenizer, "directory with tokenizer.json, or that file")->required();
  inspect.add_option("--input", inspect_flags.input, "text to measure bytes per token on");

  parse_arguments(app, "tokenizer", arguments);
  set_num_threads(threads);
  if (train.parsed()) run_train(train_flags, output);
  if (inspect.parsed()) run_inspect(inspect_flags, output);
  if (encode.parsed()) {
    if (json_lines && encode_flags.whole) throw UserError("hadal tokenizer encode: choose --whole or --json-lines");
    const TextUnit unit = encode_flags.whole ? TextUnit::kWhole : json_lines ? TextUnit::kJsonLine : TextUnit::kLine;
    encode_stream(Tokenizer::load(encode_flags.tokenizer), encode_flags.input, unit, encode_flags.add_bos);
  }
  if (decode.parsed()) decode_stream(Tokenizer::load(decode_flags.tokenizer), decode_flags.input, decode_flags.whole);
  return 0;
}

}  // namespace hadal::cli
