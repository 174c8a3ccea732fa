#include "plan/kernel_scratch.h"

#include <algorithm>

namespace hadal::plan {
namespace {

constexpr std::int64_t kMiB = std::int64_t{1} << 20;

std::int64_t round_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }
std::int64_t element(const Tape& tape) { return static_cast<std::int64_t>(size_of(tape.compute())); }
/// Columns of a panel of packed b with 512-bit registers.
std::int64_t panel(const Tape& tape) { return 128 / element(tape); }
std::int64_t lanes(const Tape& tape) { return 64 / element(tape); }

std::int64_t packed(const Tape& tape, std::int64_t n, std::int64_t k) {
  const std::int64_t rest = n % panel(tape);
  return (n - rest + (rest == 0 ? 0 : 2 * rest <= panel(tape) ? panel(tape) / 2 : panel(tape))) * k;
}

/// b [k, n] as stored, which a product of these shapes reads in place.
bool reads_stored(const Tape& tape, Product product, std::int64_t m, std::int64_t n) {
  constexpr std::int64_t kStoredRows = 1024;
  const std::int64_t rest = n % panel(tape);
  return product != Product::kForward && (rest == 0 || 2 * rest == panel(tape)) && n * element(tape) % 4096 != 0 &&
         (product == Product::kBackwardWeight || m <= kStoredRows);
}

/// What the parts into which a backward pass cuts its queries sum up apart.
std::int64_t gradient_parts(const Tape& tape, const AttentionSizes& s, std::int64_t sums) {
  constexpr std::int64_t kTasks = 32, kMinRows = 256, kBytes = 256 * kMiB;
  const std::int64_t wanted = (kTasks + s.batch * s.key_heads - 1) / (s.batch * s.key_heads);
  const std::int64_t parts =
      std::clamp<std::int64_t>(wanted, 1, std::max<std::int64_t>(1, s.queries * s.heads / s.key_heads / kMinRows));
  return std::clamp<std::int64_t>(kBytes / std::max<std::int64_t>(sums * element(tape), 1), 1, parts);
}

}  // namespace

void gemm_scratch(Tape& tape, Product product, std::int64_t m, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t kSerialWork = 200'000, kThinRows = 4;
  if (!tape.cpu() || m * n * k <= kSerialWork || m <= kThinRows || reads_stored(tape, product, m, n)) return;
  const std::int64_t depth = k > m ? std::min(k, 2048 / element(tape)) : k;
  const std::int64_t columns = std::max<std::int64_t>(16 * kMiB / (depth * panel(tape) * element(tape)), 1) * panel(tape);
  tape.touch(packed(tape, std::min(columns, n), depth));
}

void grouped_scratch(Tape& tape, Product product, std::int64_t count, std::int64_t rows, std::int64_t n, std::int64_t k) {
  if (!tape.cpu() || reads_stored(tape, product, rows / std::max<std::int64_t>(count, 1), n)) return;
  const bool weight = product == Product::kBackwardWeight;
  const std::int64_t one = weight ? packed(tape, n, rows / std::max<std::int64_t>(count, 1)) : packed(tape, n, k);
  const std::int64_t limit = (weight ? kMiB * tape.threads() : 32 * kMiB) / element(tape);
  const std::int64_t fitting = one > 0 ? std::clamp<std::int64_t>(limit / one, 1, count) : 0;
  tape.touch(fitting * one);
}

void norm_scratch(Tape& tape, std::int64_t rows, std::int64_t width) {
  constexpr std::int64_t kMaxPartials = 32;
  if (!tape.cpu()) return;
  const std::int64_t grain = std::max<std::int64_t>(64, (rows + kMaxPartials - 1) / kMaxPartials);
  tape.touch((rows + grain - 1) / grain * width);
}

void attention_scratch(Tape& tape, const AttentionSizes& s) {
  if (!tape.cpu()) return;
  const std::int64_t keys = round_up(s.keys, 128), wp = round_up(s.width, lanes(tape)), vp = round_up(s.value, lanes(tape));
  const std::int64_t rows = std::max<std::int64_t>(64, s.heads / s.key_heads);
  const std::int64_t tasks = std::min<std::int64_t>(tape.threads(), s.batch * s.heads);
  tape.touch(tasks * (s.width * keys + keys * vp + rows * (wp + vp) + 1024));
}

void selected_backward_scratch(Tape& tape, const AttentionSizes& sizes, const kernels::SelectedShape& shape) {
  tape.cuda() ? cuda_selected_backward_scratch(tape, shape) : attention_backward_scratch(tape, sizes);
}

void attention_backward_scratch(Tape& tape, const AttentionSizes& s) {
  if (tape.cuda()) return cuda_attention_backward_scratch(tape, s);
  if (!tape.cpu()) return;
  const std::int64_t keys = round_up(s.keys, 128), wp = round_up(s.width, lanes(tape)), vp = round_up(s.value, lanes(tape));
  const std::int64_t rows = std::max<std::int64_t>(64, s.heads / s.key_heads);
  const std::int64_t one = s.keys * (wp + vp), sums = s.batch * s.key_heads * one;
  const std::int64_t parts = gradient_parts(tape, s, sums);
  const bool apart = s.shared > 0 && s.key_heads > 1;
  const Held partial = parts > 1 ? tape.take(parts * sums)
                       : apart   ? tape.take(s.batch * s.key_heads * s.keys * s.shared)
                                 : Held();
  const std::int64_t tasks = std::min<std::int64_t>(tape.threads(), s.batch * s.key_heads * parts);
  tape.touch(tasks * ((s.width + s.value) * keys + keys * wp + rows * (2 * wp + vp) + 2 * rows * 128 + 2 * rows + one));
}

}  // namespace hadal::plan
