// The layout-free hash of a logical tensor that lies in pieces, in any number of files: XXH3-128 of all elements in row-major
// order.
#pragma once

#include <functional>

#include "checkpoint/manifest.h"
#include "checkpoint/open_files.h"
#include "core/hash.h"

namespace hadal::checkpoint {

/// Told how many bytes more were read; may be called from several threads.
using OnBytes = std::function<void(std::uint64_t bytes)>;

/// Streams the tensor from its files, band by band of elements, with two buffers of 4 MiB; a column slice is read in runs as long
/// as the band is. The pieces must tile the tensor. Bytes are taken as they are: blocks are verified elsewhere.
Hash128 hash_pieces(const StoredTensor& tensor, OpenFiles& files, const OnBytes& on_bytes = {});

}  // namespace hadal::checkpoint
