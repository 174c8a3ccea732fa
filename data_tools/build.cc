#include "data_tools/build.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/hash.h"
#include "core/parallel_for.h"
#include "data/megatron.h"
#include "data/token_file_writer.h"
#include "data_tools/journal.h"

namespace hadal::data_tools {
namespace {

constexpr std::size_t kBatchPieces = 1 << 16;

struct BatchPiece {
  std::uint64_t file = 0;
  Piece piece;
};

struct TextBatch {
  std::vector<BatchPiece> pieces;
  std::uint64_t file_bytes = 0;  ///< consumed on disk so far
};

/// All inputs as one row of pieces.
class Reader {
 public:
  Reader(const InputList& inputs, const BuildOptions& options, std::uint64_t file, const TextPosition& from)
      : inputs_(inputs), options_(options), file_(file), from_(from) {
    for (std::uint64_t i = 0; i < file; ++i) done_bytes_ += inputs_.files[i].bytes;
  }

  TextBatch next_batch() {
    TextBatch batch;
    std::uint64_t bytes = 0;
    while (file_ < inputs_.files.size()) {
      if (!reader_) reader_.emplace(inputs_.files[file_], options_.documents, std::exchange(from_, {}));
      std::optional<Piece> piece = reader_->next();
      if (!piece) {
        reader_.reset();
        done_bytes_ += inputs_.files[file_++].bytes;
        continue;
      }
      bytes += piece->text.size();
      const bool full = bytes >= options_.batch_bytes || batch.pieces.size() >= kBatchPieces;
      const bool resumable = piece->resumable;
      batch.pieces.push_back({file_, *std::move(piece)});
      if (full && resumable) break;
    }
    batch.file_bytes = done_bytes_ + (reader_ ? reader_->file_position() : 0);
    return batch;
  }

 private:
  const InputList& inputs_;
  const BuildOptions& options_;
  std::uint64_t file_;
  TextPosition from_;
  std::uint64_t done_bytes_ = 0;
  std::optional<DocumentReader> reader_;
};

std::string fingerprint_of(const BuildOptions& options, const Encoder& encoder, const InputList& inputs) {
  nlohmann::json json = {
      options.documents.rule.text(), options.documents.text_key, options.replace_invalid,  encoder.hash, encoder.vocab_size,
      encoder.eos_token_id,          options.out.string(),       options.megatron.string()};
  for (const InputFile& file : inputs.files) {
    json.push_back({file.path.string(), file.bytes, std::filesystem::last_write_time(file.path).time_since_epoch().count()});
  }
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return hash128(std::as_bytes(std::span(text))).hex();
}

/// What the token file says about its text: at most a few KiB.
std::string describe(const BuildOptions& options, const InputList& inputs) {
  constexpr std::size_t kListed = 16;
  nlohmann::ordered_json json;
  for (std::size_t i = 0; i < std::min(kListed, options.inputs.size()); ++i)
    json["inputs"].push_back(options.inputs[i].substr(0, 256));
  json["files"] = inputs.files.size();
  json["file_bytes"] = inputs.bytes;
  json["documents"] = options.documents.rule.text();
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

class Builder {
 public:
  Builder(const BuildOptions& options, const Encoder& encoder)
      : options_(options), encoder_(encoder), begin_(std::chrono::steady_clock::now()), inputs_(list_inputs(options.inputs)) {
    if (options_.out.empty() && options_.megatron.empty())
      throw UserError("hadal data build: give --out FILE.h5, --megatron PREFIX or both");
    for (const auto& path : outputs()) {
      if (!options_.overwrite && std::filesystem::exists(path)) {
        throw UserError("{}: exists already; remove it, choose another name, or pass --overwrite", path.string());
      }
      if (path.has_parent_path() && !std::filesystem::is_directory(path.parent_path())) {
        throw UserError("{}: its folder does not exist", path.string());
      }
    }
    journal_path_ = (options_.out.empty() ? options_.megatron : options_.out).string() + ".journal";
    const std::string fingerprint = fingerprint_of(options_, encoder_, inputs_);
    if (auto found = Journal::load(journal_path_, fingerprint)) {
      journal_ = *found;
      resumed_ = true;
    } else {
      std::filesystem::remove(journal_path_);
      journal_.fingerprint = fingerprint;
      journal_.created_utc = data::utc_now();
    }
    before_seconds_ = journal_.seconds;
    open_sinks();
  }

  BuildResult run() {
    Reader reader(inputs_, options_, journal_.file, journal_.position);
    auto saved = std::chrono::steady_clock::now();
    auto coming = std::async(std::launch::async, [&] { return reader.next_batch(); });
    for (;;) {
      const TextBatch batch = coming.get();
      if (batch.pieces.empty()) break;
      coming = std::async(std::launch::async, [&] { return reader.next_batch(); });
      write(batch);
      if (options_.progress) options_.progress(figures(batch.file_bytes));
      const bool stop = options_.stop && options_.stop();
      const auto now = std::chrono::steady_clock::now();
      if (stop || std::chrono::duration<double>(now - saved).count() >= options_.journal_seconds) {
        save();
        saved = now;
      }
      if (stop) {
        coming.wait();
        return {false, resumed_, figures(batch.file_bytes)};
      }
    }
    if (journal_.documents == 0) throw UserError("{}: no document with text in it", options_.inputs.front());
    for (const auto& sink : sinks_) sink->finish();
    std::filesystem::remove(journal_path_);
    return {true, resumed_, figures(inputs_.bytes)};
  }

 private:
  std::vector<std::filesystem::path> outputs() const {
    std::vector<std::filesystem::path> paths;
    if (!options_.out.empty()) paths.push_back(options_.out);
    if (!options_.megatron.empty()) {
      paths.emplace_back(options_.megatron.string() + ".bin");
      paths.emplace_back(options_.megatron.string() + ".idx");
    }
    return paths;
  }

  void open_sinks() {
    const data::WrittenSoFar kept{journal_.tokens, journal_.documents};
    if (!options_.out.empty()) {
      data::TokenFileInfo info;
      info.tokenizer_hash = encoder_.hash;
      info.tokenizer_name = encoder_.name;
      info.vocab_size = encoder_.vocab_size;
      info.eos_token_id = encoder_.eos_token_id;
      info.token_bytes = data::token_bytes_for(encoder_.vocab_size);
      info.created_utc = journal_.created_utc;
      info.source = describe(options_, inputs_);
      sinks_.push_back(std::make_unique<data::TokenFileWriter>(options_.out, info, false, kept));
    }
    if (!options_.megatron.empty()) {
      sinks_.push_back(std::make_unique<data::MegatronWriter>(options_.megatron, encoder_.vocab_size, kept));
    }
  }

  void write(const TextBatch& batch) {
    // Small pieces go together, so that a thread's turn is worth taking.
    std::vector<std::size_t> turns{0};
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < batch.pieces.size(); ++i) {
      bytes += batch.pieces[i].piece.text.size();
      if (bytes < DocumentReader::kPieceBytes / 2 && i + 1 < batch.pieces.size()) continue;
      turns.push_back(i + 1);
      bytes = 0;
    }
    const std::size_t num_turns = turns.size() - 1;
    std::vector<std::vector<std::int32_t>> ids(num_turns);
    std::vector<std::vector<std::size_t>> ends(num_turns);  // in ids, after each piece
    std::vector<std::uint64_t> replaced(num_turns);
    parallel_for(static_cast<std::int64_t>(num_turns), [&](std::int64_t index) {
      const auto turn = static_cast<std::size_t>(index);
      for (std::size_t i = turns[turn]; i < turns[turn + 1]; ++i) {
        const Piece& piece = batch.pieces[i].piece;
        const std::size_t bad = encoder_.append(piece.text, ids[turn]);
        if (bad > 0 && !options_.replace_invalid) refuse(batch.pieces[i]);
        replaced[turn] += bad;
        if (piece.ends_document && encoder_.eos_token_id >= 0)
          ids[turn].push_back(static_cast<std::int32_t>(encoder_.eos_token_id));
        ends[turn].push_back(ids[turn].size());
      }
    });
    for (std::size_t turn = 0; turn < num_turns; ++turn) {
      std::size_t from = 0;
      for (std::size_t i = turns[turn]; i < turns[turn + 1]; ++i) {
        const std::size_t end = ends[turn][i - turns[turn]];
        append(batch.pieces[i].piece, std::span<const std::int32_t>(ids[turn]).subspan(from, end - from));
        from = end;
      }
      journal_.replaced += replaced[turn];
    }
    journal_.file = batch.pieces.back().file;
    journal_.position = batch.pieces.back().piece.end;
  }

  void append(const Piece& piece, std::span<const std::int32_t> ids) {
    for (const auto& sink : sinks_) sink->append(ids);
    journal_.bytes += piece.text.size();
    journal_.tokens += ids.size();
    if (!piece.ends_document) return;
    for (const auto& sink : sinks_) sink->end_document();
    ++journal_.documents;
  }

  [[noreturn]] void refuse(const BatchPiece& bad) const {
    const Piece& piece = bad.piece;
    const std::size_t at = first_invalid_utf8(piece.text);
    const auto line = piece.begin.line + static_cast<std::uint64_t>(std::count(
                                             piece.text.begin(), piece.text.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    throw UserError("{}:{}: not valid UTF-8 at byte {} of the text; convert the file, or pass --replace-invalid",
                    inputs_.files[bad.file].path.string(), line, piece.begin.offset + at);
  }

  void save() {
    for (const auto& sink : sinks_) sink->sync();
    journal_.seconds = seconds();
    journal_.save(journal_path_);
  }

  double seconds() const {
    return before_seconds_ + std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

  BuildFigures figures(std::uint64_t file_bytes) const {
    return {journal_.documents, journal_.tokens, journal_.bytes, file_bytes, inputs_.bytes, journal_.replaced, seconds()};
  }

  const BuildOptions& options_;
  const Encoder& encoder_;
  std::chrono::steady_clock::time_point begin_;
  InputList inputs_;
  std::filesystem::path journal_path_;
  Journal journal_;
  bool resumed_ = false;
  double before_seconds_ = 0.0;
  std::vector<std::unique_ptr<data::TokenSink>> sinks_;
};

}  // namespace

std::size_t first_invalid_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto is_tail = [&](std::size_t i) { return (byte(i) & 0xc0) == 0x80; };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned first = byte(i);
    const unsigned second = byte(i + 1);
    if (first < 0x80) {
      i += 1;
    } else if (first >= 0xc2 && first <= 0xdf && is_tail(i + 1)) {
      i += 2;
    } else if (first >= 0xe0 && first <= 0xef && is_tail(i + 1) && is_tail(i + 2) && !(first == 0xe0 && second < 0xa0) &&
               !(first == 0xed && second > 0x9f)) {
      i += 3;
    } else if (first >= 0xf0 && first <= 0xf4 && is_tail(i + 1) && is_tail(i + 2) && is_tail(i + 3) &&
               !(first == 0xf0 && second < 0x90) && !(first == 0xf4 && second > 0x8f)) {
      i += 4;
    } else {
      return i;
    }
  }
  return text.size();
}

BuildResult build(const BuildOptions& options, const Encoder& encoder) { return Builder(options, encoder).run(); }

}  // namespace hadal::data_tools
