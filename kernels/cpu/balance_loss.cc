// Loads and balance losses, one sequence after the other (in parallel): see kernels/router.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/parallel_for.h"
#include "kernels/dispatch.h"
#include "kernels/router.h"

namespace hadal::kernels {
namespace {

/// The rows here of one sequence: [begin, valid_end) count, [valid_end, end) do not.
struct Range {
  std::int64_t begin, valid_end, end;
};

Range rows_of(const SequenceRows& rows, std::int64_t sequence, std::int64_t count) {
  const std::int64_t first = sequence * rows.seq - rows.row_begin;
  const auto here = [count](std::int64_t row) { return std::clamp<std::int64_t>(row, 0, count); };
  return {here(first), here(first + rows.valid_seq), here(first + rows.seq)};
}

/// Top-K of the raw scores of rows [begin, end).
template <class T>
void count_raw_top_k(const T* scores, std::int64_t num_experts, std::int64_t top_k, std::int64_t begin, std::int64_t end,
                     std::int64_t* counts) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(num_experts));
  for (std::int64_t t = begin; t < end; ++t) {
    const T* s = scores + t * num_experts;
    // A NaN sorts as the lowest score: a comparison that is false both ways would be no order.
    const auto key = [s](std::int32_t e) { return std::isnan(s[e]) ? -std::numeric_limits<T>::infinity() : s[e]; };
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(),
                      [&](std::int32_t a, std::int32_t b) { return key(a) > key(b) || (key(a) == key(b) && a < b); });
    for (std::int64_t k = 0; k < top_k; ++k) ++counts[order[static_cast<std::size_t>(k)]];
  }
}

/// Tokens of rows [begin, end) with at least one expert on each device.
void count_sent(const std::int32_t* experts, std::int64_t top_k, std::int64_t per_device, std::int64_t num_devices,
                std::int64_t begin, std::int64_t end, std::int64_t* tokens) {
  std::vector<std::int64_t> last_seen(static_cast<std::size_t>(num_devices), -1);
  for (std::int64_t t = begin; t < end; ++t) {
    for (std::int64_t k = 0; k < top_k; ++k) {
      const std::int64_t device = experts[t * top_k + k] / per_device;
      if (last_seen[static_cast<std::size_t>(device)] != t) ++tokens[device];
      last_seen[static_cast<std::size_t>(device)] = t;
    }
  }
}

void balance_counts(Stream&, const BalanceCounts& args) {
  visit_float(args.scores.dtype, [&]<class T>() {
    const std::int64_t tokens = args.scores.shape[0], num_experts = args.scores.shape[1], top_k = args.options.top_k;
    const std::int64_t num_devices = args.sent.empty() ? 0 : args.sent.shape[1];
    const std::int32_t* experts = args.experts.as<std::int32_t>();
    std::int64_t* chosen = args.chosen.as<std::int64_t>();
    parallel_for(args.rows.batch, [&](std::int64_t b) {
      const Range range = rows_of(args.rows, b, tokens);
      std::int64_t* of_sequence = chosen + b * num_experts;
      std::fill(of_sequence, of_sequence + num_experts, 0);
      for (std::int64_t p = range.begin * top_k; p < range.valid_end * top_k; ++p) ++of_sequence[experts[p]];
      if (!args.raw_top_k.empty()) {
        std::int64_t* raw = args.raw_top_k.as<std::int64_t>() + b * num_experts;
        std::fill(raw, raw + num_experts, 0);
        count_raw_top_k(args.scores.as<T>(), num_experts, top_k, range.begin, range.valid_end, raw);
      }
      if (num_devices > 0) {
        std::int64_t* sent = args.sent.as<std::int64_t>() + b * num_devices;
        std::fill(sent, sent + num_devices, 0);
        count_sent(experts, top_k, num_experts / num_devices, num_devices, range.begin, range.valid_end, sent);
      }
    });
    std::int64_t* counts = args.counts.as<std::int64_t>();
    for (std::int64_t b = 0; b < args.rows.batch; ++b) {
      for (std::int64_t e = 0; e < num_experts; ++e) counts[e] += chosen[b * num_experts + e];
    }
  });
}

/// c of one sequence: see BalanceLoss.
std::vector<double> coefficients(const BalanceLoss& args, std::int64_t sequence) {
  const std::int64_t num_experts = args.scores.shape[1];
  const auto tokens = static_cast<double>(args.tokens);
  const std::int64_t* chosen = args.chosen.as<std::int64_t>() + sequence * num_experts;
  const double to_fraction = static_cast<double>(num_experts) / (static_cast<double>(args.options.top_k) * tokens);
  std::vector<double> c(static_cast<std::size_t>(num_experts), 0.0);
  if (args.sequence_alpha != 0) {
    const std::int64_t* raw = args.raw_top_k.as<std::int64_t>() + sequence * num_experts;
    for (std::size_t e = 0; e < c.size(); ++e) c[e] += args.sequence_alpha * to_fraction * static_cast<double>(raw[e]);
  }
  if (args.expert_alpha != 0) {
    for (std::size_t e = 0; e < c.size(); ++e) c[e] += args.expert_alpha * to_fraction * static_cast<double>(chosen[e]);
  }
  if (args.device_alpha == 0 && args.communication_alpha == 0) return c;

  const std::int64_t num_devices = args.sent.shape[1], per_device = num_experts / num_devices;
  const std::int64_t* sent = args.sent.as<std::int64_t>() + sequence * num_devices;
  const double to_share = static_cast<double>(num_devices) / (static_cast<double>(args.options.topk_groups) * tokens);
  for (std::int64_t device = 0; device < num_devices; ++device) {
    double load = 0;
    for (std::int64_t e = device * per_device; e < (device + 1) * per_device; ++e)
      load += to_fraction * static_cast<double>(chosen[e]);
    const double term = args.device_alpha * load / static_cast<double>(per_device) +
                        args.communication_alpha * to_share * static_cast<double>(sent[device]);
    for (std::int64_t e = device * per_device; e < (device + 1) * per_device; ++e) c[static_cast<std::size_t>(e)] += term;
  }
  return c;
}

/// Loss of the rows here of one sequence; fills their d_scores.
template <class T>
double sequence_loss(const BalanceLoss& args, std::int64_t sequence) {
  const std::int64_t num_experts = args.scores.shape[1];
  const Range range = rows_of(args.rows, sequence, args.scores.shape[0]);
  T* d_scores = args.d_scores.as<T>();
  std::fill(d_scores + range.valid_end * num_experts, d_scores + range.end * num_experts, T{0});
  if (range.begin == range.valid_end) return 0;
  const std::vector<double> c = coefficients(args, sequence);
  const auto tokens = static_cast<double>(args.tokens);
  double loss = 0;
  for (std::int64_t t = range.begin; t < range.valid_end; ++t) {
    const T* s = args.scores.as<T>() + t * num_experts;
    T* d = d_scores + t * num_experts;
    double sum = 0, mean = 0;
    for (std::int64_t e = 0; e < num_experts; ++e) sum += static_cast<double>(s[e]);
    for (std::int64_t e = 0; e < num_experts; ++e) mean += c[static_cast<std::size_t>(e)] * static_cast<double>(s[e]) / sum;
    loss += args.scale * mean / tokens;
    for (std::int64_t e = 0; e < num_experts; ++e) {
      d[e] = static_cast<T>(args.scale / (tokens * sum) * (c[static_cast<std::size_t>(e)] - mean));
    }
  }
  return loss;
}

void balance_loss(Stream&, const BalanceLoss& args) {
  visit_float(args.scores.dtype, [&]<class T>() {
    std::vector<double> losses(static_cast<std::size_t>(args.rows.batch));
    parallel_for(args.rows.batch, [&](std::int64_t b) { losses[static_cast<std::size_t>(b)] = sequence_loss<T>(args, b); });
    double* loss = args.loss.as<double>();
    for (const double of_sequence : losses) *loss += of_sequence;
  });
}

const RegisterCpu<BalanceCounts> registered_counts{balance_counts};
const RegisterCpu<BalanceLoss> registered_loss{balance_loss};

}  // namespace
}  // namespace hadal::kernels
