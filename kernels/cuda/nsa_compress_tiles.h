// Gated pooling of NSA blocks in one pass over memory, where blocks and rows allow it (nsa_compress_tiles.cu).
#pragma once

#include "core/stream.h"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {

/// Blocks of 32 tokens, 16 apart, at least one; bf16 in rows of whole 16 bytes.
bool fits_tiles(const NsaCompressForward& args);
bool fits_tiles(const NsaCompressBackward& args);

/// The op, for args that fit.
void compress_by_tiles(Stream& stream, const NsaCompressForward& args);
void compress_by_tiles(Stream& stream, const NsaCompressBackward& args);

}  // namespace hadal::kernels::cuda
