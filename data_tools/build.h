// Text files to token files (`hadal data build`): in bounded memory, in parallel, and continued after a kill.
//
// The text is read in batches; the pieces of a batch are encoded on all threads while the next batch is
// read, and appended in order: the output depends on the input and the options alone. Every few seconds what is written
// is made durable and OUT.journal says how far the build came; the same command goes on from there, to the same bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data_tools/documents.h"

namespace hadal::data_tools {

/// What turns text into ids. `append` may run on many threads at once and returns how many invalid bytes it replaced.
struct Encoder {
  std::function<std::size_t(std::string_view text, std::vector<std::int32_t>& ids)> append;
  std::uint64_t vocab_size = 0;
  std::int64_t eos_token_id = -1;  ///< ends every document; -1: none
  std::string hash;
  std::string name;
};

struct BuildFigures {
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;
  std::uint64_t bytes = 0;       ///< of text, uncompressed
  std::uint64_t file_bytes = 0;  ///< of the inputs consumed, on disk
  std::uint64_t file_total = 0;  ///< of all inputs, on disk
  std::uint64_t replaced = 0;    ///< invalid UTF-8 bytes
  double seconds = 0.0;          ///< all runs of a continued build together
};

struct BuildOptions {
  std::vector<std::string> inputs;
  std::filesystem::path out;       ///< token file; empty: none
  std::filesystem::path megatron;  ///< prefix; empty: none
  DocumentOptions documents;
  bool replace_invalid = false;                       ///< U+FFFD for invalid UTF-8 instead of an error
  bool overwrite = false;                             ///< replace finished outputs
  std::uint64_t batch_bytes = 16 << 20;               ///< of text in memory at once, twice
  double journal_seconds = 5.0;                       ///< between two durable points
  std::function<void(const BuildFigures&)> progress;  ///< after each batch
  std::function<bool()> stop;                         ///< asked after each batch; true: make durable and return
};

struct BuildResult {
  bool finished = false;  ///< false: stopped; the same options continue
  bool resumed = false;
  BuildFigures figures;
};

/// UserError on options, existing outputs and text that cannot be used (file, line, byte offset); DamagedDataError on damaged
/// compressed files and unfinished outputs; IoError when the disk refuses.
BuildResult build(const BuildOptions& options, const Encoder& encoder);

/// Byte offset of the first byte that starts no valid UTF-8 character; text.size() when all is valid.
std::size_t first_invalid_utf8(std::string_view text);

}  // namespace hadal::data_tools
