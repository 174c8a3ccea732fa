// Memory that the CPU's kernels take while they run, as upper estimates on a tape: packed matrices, attention's tiles. Kernels of
// other devices have their workspace in the machine's reserve.
#pragma once

#include "plan/tape.h"

namespace hadal::plan {

enum class Product { kForward, kBackwardInput, kBackwardWeight };

/// c [m, n] = a b with b [k, n] packed unless it can be read as it lies, at most 16 MiB; a weight's gradient block by block of k.
void gemm_scratch(Tape& tape, Product product, std::int64_t m, std::int64_t n, std::int64_t k);
/// The same of `count` experts' products over `rows` rows in all: at most 32 MiB of packed weights at once, of packed rows 1 MiB
/// a thread, but never less than one expert's. c is [rows, n] forward and of input gradients, [m, n] of weight gradients.
void grouped_scratch(Tape& tape, Product product, std::int64_t count, std::int64_t rows, std::int64_t n, std::int64_t k);
/// Partial sums of a norm's gain.
void norm_scratch(Tape& tape, std::int64_t rows, std::int64_t width);

/// Sizes of one attention.
struct AttentionSizes {
  std::int64_t batch = 1;
  std::int64_t queries = 0;  ///< of a sequence, here
  std::int64_t keys = 0;     ///< of a sequence
  std::int64_t heads = 1;
  std::int64_t key_heads = 1;
  std::int64_t width = 0;  ///< of a query and a key
  std::int64_t value = 0;
  std::int64_t shared = 0;  ///< part of the key's width that all heads share
};
void attention_scratch(Tape& tape, const AttentionSizes& sizes);
void attention_backward_scratch(Tape& tape, const AttentionSizes& sizes);

}  // namespace hadal::plan
