// Memory that kernels take while they run, on a tape: upper estimates of the CPU's packed matrices and attention tiles, and what the CUDA
// kernels ask for by kernels/cuda_scratch.h. What a device's kernels do not take is not counted on its tape.
#pragma once

#include "kernels/cuda_scratch.h"
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
  std::int64_t query_start = 0;                     ///< position of the first query among the keys' tokens
  std::int64_t window = 0;                          ///< 0: none
  std::int64_t block_length = 0, block_stride = 0;  ///< keys are entries of blocks; 0: tokens
};
void attention_scratch(Tape& tape, const AttentionSizes& sizes);
void attention_backward_scratch(Tape& tape, const AttentionSizes& sizes);
void cuda_attention_backward_scratch(Tape& tape, const AttentionSizes& sizes);

/// Sparse attention over selected blocks; the CPU goes through `sizes` as through dense attention, backward alone takes something.
void selected_scratch(Tape& tape, const kernels::SelectedShape& shape);
void selected_backward_scratch(Tape& tape, const AttentionSizes& sizes, const kernels::SelectedShape& shape);
void cuda_selected_backward_scratch(Tape& tape, const kernels::SelectedShape& shape);
/// Choice of blocks out of `blocks`.
void select_scratch(Tape& tape, std::int64_t batch, std::int64_t queries, std::int64_t groups, std::int64_t blocks);
/// Pooling of blocks of `length` tokens, `stride` apart; `tokens` of a sequence.
void pooling_backward_scratch(Tape& tape, std::int64_t batch, std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t length,
                              std::int64_t stride);
/// The router's product with [experts, width] weights in f32.
void router_scratch(Tape& tape, std::int64_t tokens, std::int64_t experts, std::int64_t width);
void router_backward_scratch(Tape& tape, std::int64_t tokens, std::int64_t experts, std::int64_t width);
/// Logits of the head, a chunk of rows at a time.
void head_scratch(Tape& tape, std::int64_t tokens, std::int64_t columns);

}  // namespace hadal::plan
