// hadal data build | inspect | batches (spec/cli.md).
#include <fmt/core.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/data_batches.h"
#include "config/load.h"
#include "core/error.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "data/open_source.h"
#include "data/token_file.h"
#include "data_tools/build.h"
#include "data_tools/inspect.h"
#include "tokenizer/tokenizer.h"
#include "train/signals.h"

namespace hadal::cli {
namespace {

using tokenizer::Tokenizer;

struct BuildFlags {
  data_tools::BuildOptions options;
  std::string tokenizer;
  std::string documents = "file";
  std::string out;
  std::string megatron;
  int threads = 0;
  OutputFlags output;
};

struct InspectFlags {
  std::string path;
  std::string tokenizer;
  std::uint64_t show = 0;
  OutputFlags output;
};

data_tools::Encoder encoder_of(const Tokenizer& tokenizer, const std::string& name) {
  data_tools::Encoder encoder;
  encoder.append = [tokenizer](std::string_view text, std::vector<std::int32_t>& ids) {
    return tokenizer.encode_append(text, ids);
  };
  encoder.vocab_size = static_cast<std::uint64_t>(tokenizer.vocab_size());
  encoder.eos_token_id = tokenizer.eos_id();
  encoder.hash = tokenizer.hash();
  encoder.name = name;
  return encoder;
}

std::uint64_t peak_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

std::string progress_text(const data_tools::BuildFigures& figures) {
  const double share =
      figures.file_total == 0 ? 1.0 : static_cast<double>(figures.file_bytes) / static_cast<double>(figures.file_total);
  return fmt::format("{:5.1f} % | {} documents | {:.2f} M tokens | {:.1f} MB of text | {:.1f} MB/s", 100.0 * share,
                     figures.documents, static_cast<double>(figures.tokens) * 1e-6, static_cast<double>(figures.bytes) * 1e-6,
                     static_cast<double>(figures.bytes) * 1e-6 / std::max(figures.seconds, 1e-3));
}

/// One line rewritten in place on a terminal; elsewhere a line every ten seconds.
class BuildProgress {
 public:
  explicit BuildProgress(bool quiet) : quiet_(quiet), live_(!quiet && ::isatty(STDERR_FILENO) == 1) {}
  ~BuildProgress() { end(); }
  BuildProgress(const BuildProgress&) = delete;
  BuildProgress& operator=(const BuildProgress&) = delete;

  void operator()(const data_tools::BuildFigures& figures) {
    const auto now = std::chrono::steady_clock::now();
    if (quiet_ || now - shown_ < (live_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000))) return;
    shown_ = now;
    if (!live_) return log_info("{}", progress_text(figures));
    fmt::print(stderr, "\r\033[K{}", progress_text(figures));
    drawn_ = true;
  }
  /// Leaves the live line.
  void end() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
    drawn_ = false;
  }

 private:
  bool quiet_;
  bool live_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point shown_ = std::chrono::steady_clock::now();
};

int run_build(BuildFlags& flags) {
  flags.options.out = flags.out;
  flags.options.megatron = flags.megatron;
  flags.options.documents.rule = data_tools::DocumentRule::parse(flags.documents);
  if (flags.threads > 0) set_num_threads(flags.threads);
  const Tokenizer tokenizer = Tokenizer::load(flags.tokenizer);
  if (tokenizer.eos_id() < 0)
    log_warning("{}: names no end-of-text token, so nothing marks the end of a document", flags.tokenizer);

  const train::SignalHandlers handlers(true);
  flags.options.stop = [] { return train::pending_request() == train::Request::kSaveAndStop; };
  BuildProgress progress(flags.output.quiet);
  flags.options.progress = [&](const data_tools::BuildFigures& figures) { progress(figures); };
  const data_tools::BuildResult result = data_tools::build(flags.options, encoder_of(tokenizer, flags.tokenizer));
  progress.end();

  const data_tools::BuildFigures& figures = result.figures;
  const std::string target = flags.out.empty() ? flags.megatron : flags.out;
  if (!result.finished) {
    log_info("stopped at {}; the same command goes on from here", progress_text(figures));
    return static_cast<int>(ExitCode::kStoppedEarly);
  }
  if (figures.replaced > 0) log_warning("{} invalid UTF-8 bytes were replaced by U+FFFD", figures.replaced);
  const nlohmann::ordered_json json = {
      {"documents", figures.documents}, {"tokens", figures.tokens},     {"bytes", figures.bytes},   {"seconds", figures.seconds},
      {"peak_bytes", peak_bytes()},     {"replaced", figures.replaced}, {"resumed", result.resumed}};
  if (flags.output.json_path != "-") {
    fmt::print("{}: {} documents, {} tokens, {} bytes of text ({:.2f} bytes a token), {:.1f} s, {:.1f} MB/s, peak {:.0f} MiB\n",
               target, figures.documents, figures.tokens, figures.bytes,
               static_cast<double>(figures.bytes) / static_cast<double>(figures.tokens), figures.seconds,
               static_cast<double>(figures.bytes) * 1e-6 / std::max(figures.seconds, 1e-3),
               static_cast<double>(peak_bytes()) / 1048576.0);
  }
  write_figures(flags.output, json.dump(2));
  return 0;
}

void show_documents(const data::TokenSource& source, const Tokenizer* tokenizer, std::uint64_t count) {
  constexpr std::uint64_t kShown = 256;
  for (std::uint64_t document = 0; document < std::min(count, source.num_documents()); ++document) {
    const std::uint64_t length = source.document_length(document);
    std::vector<std::int32_t> ids(std::min(length, kShown));
    source.read(source.document_begin(document), ids);
    fmt::print("\n--- document {}: {} tokens{}\n", document, length,
               length > kShown ? fmt::format(", the first {}", kShown) : "");
    if (tokenizer != nullptr) {
      fmt::print("{}\n", tokenizer->decode(ids));
    } else {
      for (const std::int32_t id : ids) fmt::print("{} ", id);
      fmt::print("\n");
    }
  }
}

int run_inspect(const InspectFlags& flags) {
  const data::TokenSourcePtr source = data::open_token_source(flags.path);
  std::optional<Tokenizer> tokenizer;
  const auto* file = dynamic_cast<const data::TokenFile*>(source.get());
  const std::string written_with = file == nullptr ? "" : file->info().tokenizer_name;
  const std::string from = flags.tokenizer.empty() ? written_with : flags.tokenizer;
  if (!flags.tokenizer.empty() || (!from.empty() && std::filesystem::exists(from))) tokenizer = Tokenizer::load(from);
  if (tokenizer && !source->tokenizer_hash().empty() && tokenizer->hash() != source->tokenizer_hash()) {
    if (!flags.tokenizer.empty()) {
      throw UserError("{}: was written with another tokenizer ({}) than {} ({})", flags.path, source->tokenizer_hash(), from,
                      tokenizer->hash());
    }
    tokenizer.reset();
  }
  const std::int64_t eos = source->eos_token_id() >= 0 ? source->eos_token_id() : tokenizer ? tokenizer->eos_id() : -1;
  // The whole file is read: that checks every block, and finds the largest id.
  const data_tools::SourceFigures figures = data_tools::inspect(*source, eos);
  const nlohmann::ordered_json json = {{"format", source->format()},
                                       {"tokens", source->num_tokens()},
                                       {"documents", source->num_documents()},
                                       {"dtype", figures.dtype},
                                       {"max_id", figures.max_id},
                                       {"vocab_size", source->vocab_size()},
                                       {"eos_token_id", eos},
                                       {"documents_ending_in_eos", figures.ending_in_eos},
                                       {"shortest", figures.shortest},
                                       {"longest", figures.longest},
                                       {"tokenizer_hash", source->tokenizer_hash()},
                                       {"created_utc", file == nullptr ? "" : file->info().created_utc},
                                       {"source", file == nullptr ? "" : file->info().source}};
  if (flags.output.json_path != "-") {
    for (const auto& [key, value] : json.items()) {
      if (value == "" || (key == "vocab_size" && value == 0)) continue;
      fmt::print("{:<24} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
    show_documents(*source, tokenizer ? &*tokenizer : nullptr, flags.show);
  }
  write_figures(flags.output, json.dump(2));
  return 0;
}

}  // namespace

int data_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.require_subcommand(1);

  BuildFlags build;
  CLI::App* build_app =
      app.add_subcommand("build", "text, JSON lines, .gz, .zst to a token file; the same command continues a stopped build");
  build_app
      ->add_option("--input", build.options.inputs,
                   "files and folders; .jsonl and .ndjson are JSON lines, all else is plain text")
      ->required();
  build_app->add_option("--tokenizer", build.tokenizer, "folder with tokenizer.json (hadal tokenizer train)")->required();
  build_app->add_option("--out", build.out, "token file to write")->type_name("FILE.h5");
  build_app->add_option("--megatron", build.megatron, "also, or instead of --out, write PREFIX.bin and PREFIX.idx")
      ->type_name("PREFIX");
  build_app
      ->add_option("--documents", build.documents,
                   "what a document of a plain text file is: file, paragraphs (between blank lines), "
                   "or a size such as 16KiB (ends at the next line break)")
      ->capture_default_str();
  build_app->add_option("--text-key", build.options.documents.text_key, "key of the text in a JSON line")->capture_default_str();
  build_app->add_flag("--replace-invalid", build.options.replace_invalid, "replace invalid UTF-8 by U+FFFD instead of stopping");
  build_app->add_flag("--overwrite", build.options.overwrite, "replace outputs that exist");
  build_app->add_option("--threads", build.threads, "0: all cores")->check(CLI::Range(0, 1024));
  add_output_flags(*build_app, build.output);

  InspectFlags inspect;
  CLI::App* inspect_app =
      app.add_subcommand("inspect", "reads a token file of any accepted format whole: sizes, largest id, damage");
  inspect_app->add_option("PATH", inspect.path, "FILE.h5, a Megatron prefix, a datatrove FILE.ds, an llm.c FILE.bin")->required();
  inspect_app->add_option("--show", inspect.show, "print the first N documents")->type_name("N");
  inspect_app->add_option("--tokenizer", inspect.tokenizer,
                          "to print text; by default the one the file was written with, if it is still there");
  add_output_flags(*inspect_app, inspect.output);

  ConfigArguments config;
  BatchesFlags batches;
  OutputFlags batches_output;
  CLI::App* batches_app = app.add_subcommand("batches", "the exact global batches that training will see, as safetensors");
  add_config_arguments(*batches_app, config);
  batches_app->add_option("--steps", batches.steps, "number of steps N")->required()->check(CLI::PositiveNumber);
  batches_app->add_option("--first-step", batches.first_step, "steps before the first one written")
      ->check(CLI::NonNegativeNumber);
  batches_app->add_option("--out", batches.out, "tokens, targets, positions, document_ids I32 and loss_mask U8, all [N, B, S]")
      ->required()
      ->type_name("FILE.safetensors");
  add_quiet_flag(*batches_app, batches_output);

  parse_arguments(app, "data", arguments);
  if (build_app->parsed()) return run_build(build);
  if (inspect_app->parsed()) return run_inspect(inspect);
  write_batches(load_config(config.path, config.overrides).config, batches);
  return 0;
}

}  // namespace hadal::cli
