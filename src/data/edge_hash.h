// What tells two token files without hashes apart, short of reading them whole.
#pragma once

#include "core/file.h"
#include "core/hash.h"

namespace hadal::data {

/// Feeds the file's size and its first and last MiB.
void hash_edges(Hasher& hasher, const File& file);

}  // namespace hadal::data
