// Tokens to prove layouts on: random documents in memory, through the sampler that training uses, with everything that makes batches
// uneven in it: documents of all lengths packed into rows, fill-in-middle, masked targets.
#pragma once

#include <memory>

#include "data/sampler.h"

namespace hadal::verify {

/// Samples of `sequence_length` tokens with ids below `vocab_size` (at least 8).
std::unique_ptr<data::Sampler> synthetic_sampler(std::int64_t vocab_size, std::int64_t sequence_length, std::uint64_t seed);

}  // namespace hadal::verify
