// What one rank wrote of a checkpoint, small enough to be sent to all others, and how these make one manifest.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/manifest.h"

namespace hadal::checkpoint {

/// Slices of one logical tensor in this rank's files.
struct WrittenTensor {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;                  ///< of the logical tensor
  std::optional<Hash128> hash;  ///< known to a rank that wrote it whole
  std::vector<Piece> pieces;    ///< `file` counts this rank's files
};

struct Contribution {
  std::vector<StoredFile> files;
  std::vector<WrittenTensor> tensors;
};

std::string to_bytes(const Contribution& contribution);
/// Of to_bytes on another rank of this job; ContractError when it is torn.
Contribution contribution_of(std::string_view bytes);

/// All ranks' files and tensors, by rank; hashes that nobody knows are left out and listed.
struct Merged {
  Manifest manifest;
  std::vector<std::size_t> unhashed;  ///< into manifest.tensors
};

/// ContractError naming the tensor when ranks disagree on its dtype or shape, or when its slices overlap or leave something out:
/// a layout that is saved wrongly is a bug of ours. The same on every rank, since all see the same.
Merged merge(const std::vector<Contribution>& contributions);

}  // namespace hadal::checkpoint
