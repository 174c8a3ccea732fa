// What a step directory holds, as its `manifest.json` says (spec/reliability.md 2, mechanism 4): files with a hash of the whole
// and of each 4 MiB block, logical tensors with a layout-free hash and the pieces they lie in, and the run's small state.
// A `COMMIT` file beside it holds the manifest's own hash and is written last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/slice.h"
#include "checkpoint/state.h"
#include "core/dtype.h"
#include "core/hash.h"
#include "core/shape.h"

namespace hadal::checkpoint {

inline constexpr std::uint64_t kBlockBytes = 4 << 20;
inline constexpr std::size_t kMaxPieces = 16384;  ///< of one tensor
inline constexpr std::string_view kManifestName = "manifest.json";
inline constexpr std::string_view kCommitName = "COMMIT";

struct StoredFile {
  std::string name;
  std::uint64_t bytes = 0;
  Hash128 hash;
  std::vector<Hash128> blocks;  ///< one per kBlockBytes, the last may be shorter
};

/// A slice of a logical tensor, packed row-major from byte `offset` of a file on.
struct Piece {
  std::int64_t file = 0;     ///< index into Manifest::files
  std::uint64_t offset = 0;  ///< a multiple of the element's size
  Slice slice;
};

struct StoredTensor {
  std::string name;  ///< "lm_head.weight", "optim.m/lm_head.weight"
  DType dtype = DType::kF32;
  Shape shape;
  Hash128 hash;  ///< of all elements in row-major order, whatever the pieces
  std::vector<Piece> pieces;
};

struct Manifest {
  std::int64_t step = 0;
  std::vector<StoredFile> files;
  std::vector<StoredTensor> tensors;  ///< sorted by name
  State state;
};

/// Canonical JSON text.
std::string to_json(const Manifest& manifest);

/// Strict: unknown keys, bad names, pieces that leave their file, overlap or do not tile their tensor are DamagedDataError
/// naming `path`.
Manifest parse_manifest(std::string_view text, const std::filesystem::path& path);

/// Empty when the pieces hold every element once, else what is wrong.
std::string tiling_problem(const StoredTensor& tensor);

/// Contents of COMMIT for a manifest text.
std::string commit_text(std::string_view manifest);

/// Hashes of the blocks of a file, and of the whole; its bytes are the spans, one after the other.
StoredFile hash_file(std::string name, std::span<const std::span<const std::byte>> spans);

/// [A-Za-z0-9._-]{1,255}, optionally after one such word and a slash.
bool is_stored_name(std::string_view name);

}  // namespace hadal::checkpoint
