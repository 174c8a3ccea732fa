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

/// What one sequence contributes; merged in sequence order.
struct SequenceResult {
  std::vector<std::int64_t> counts;  // [E] chosen pairs
  double loss = 0;
};

template <class T>
class SequenceBalance {
 public:
  SequenceBalance(const BalanceLoss& args, std::int64_t sequence)
      : args_(args),
        num_experts_(args.scores.shape[1]),
        seq_(args.scores.shape[0] / args.batch),
        scores_(args.scores.as<T>() + sequence * seq_ * num_experts_),
        experts_(args.experts.as<std::int32_t>() + sequence * seq_ * args.options.top_k),
        d_scores_(args.d_scores.empty() ? nullptr : args.d_scores.as<T>() + sequence * seq_ * num_experts_) {}

  SequenceResult run() {
    SequenceResult result{counts_of_choices(), 0};
    if (d_scores_ == nullptr || args_.valid_seq == 0) {
      if (d_scores_ != nullptr) std::fill(d_scores_, d_scores_ + seq_ * num_experts_, T{0});
      return result;
    }
    const std::vector<double> c = coefficients(result.counts);
    const double tokens = static_cast<double>(args_.valid_seq);
    for (std::int64_t t = 0; t < seq_; ++t) {
      T* d = d_scores_ + t * num_experts_;
      if (t >= args_.valid_seq) {
        std::fill(d, d + num_experts_, T{0});
        continue;
      }
      const T* s = scores_ + t * num_experts_;
      double sum = 0, mean = 0;
      for (std::int64_t e = 0; e < num_experts_; ++e) sum += static_cast<double>(s[e]);
      for (std::int64_t e = 0; e < num_experts_; ++e) mean += c[e] * static_cast<double>(s[e]) / sum;
      result.loss += args_.scale * mean / tokens;
      for (std::int64_t e = 0; e < num_experts_; ++e) d[e] = static_cast<T>(args_.scale / (tokens * sum) * (c[e] - mean));
    }
    return result;
  }

 private:
  std::vector<std::int64_t> counts_of_choices() const {
    std::vector<std::int64_t> counts(num_experts_, 0);
    for (std::int64_t p = 0; p < args_.valid_seq * args_.options.top_k; ++p) ++counts[experts_[p]];
    return counts;
  }

  /// Top-K of the raw scores: no bias, no group limit (spec/model.md 6.2).
  std::vector<std::int64_t> counts_of_raw_top_k() const {
    std::vector<std::int64_t> counts(num_experts_, 0);
    std::vector<std::int32_t> order(num_experts_);
    for (std::int64_t t = 0; t < args_.valid_seq; ++t) {
      const T* s = scores_ + t * num_experts_;
      // A NaN sorts as the lowest score: a comparison that is false both ways would be no order.
      const auto key = [s](std::int32_t e) { return std::isnan(s[e]) ? -std::numeric_limits<T>::infinity() : s[e]; };
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + args_.options.top_k, order.end(),
                        [&](std::int32_t a, std::int32_t b) { return key(a) > key(b) || (key(a) == key(b) && a < b); });
      for (std::int64_t k = 0; k < args_.options.top_k; ++k) ++counts[order[k]];
    }
    return counts;
  }

  /// Tokens with at least one expert on each device.
  std::vector<std::int64_t> tokens_per_device() const {
    const std::int64_t per_device = num_experts_ / args_.num_devices;
    std::vector<std::int64_t> tokens(args_.num_devices, 0);
    std::vector<std::int64_t> last_seen(args_.num_devices, -1);
    for (std::int64_t t = 0; t < args_.valid_seq; ++t) {
      for (std::int64_t k = 0; k < args_.options.top_k; ++k) {
        const std::int64_t device = experts_[t * args_.options.top_k + k] / per_device;
        if (last_seen[device] != t) ++tokens[device];
        last_seen[device] = t;
      }
    }
    return tokens;
  }

  std::vector<double> coefficients(const std::vector<std::int64_t>& chosen) const {
    const double to_fraction =
        static_cast<double>(num_experts_) / (static_cast<double>(args_.options.top_k) * static_cast<double>(args_.valid_seq));
    std::vector<double> c(num_experts_, 0.0);
    if (args_.sequence_alpha != 0) {
      const auto raw = counts_of_raw_top_k();
      for (std::int64_t e = 0; e < num_experts_; ++e) c[e] += args_.sequence_alpha * to_fraction * static_cast<double>(raw[e]);
    }
    if (args_.expert_alpha != 0) {
      for (std::int64_t e = 0; e < num_experts_; ++e) c[e] += args_.expert_alpha * to_fraction * static_cast<double>(chosen[e]);
    }
    if (args_.device_alpha != 0 || args_.communication_alpha != 0) add_device_terms(chosen, to_fraction, c);
    return c;
  }

  void add_device_terms(const std::vector<std::int64_t>& chosen, double to_fraction, std::vector<double>& c) const {
    const std::int64_t per_device = num_experts_ / args_.num_devices;
    const auto sent = tokens_per_device();
    const double to_share = static_cast<double>(args_.num_devices) /
                            (static_cast<double>(args_.options.topk_groups) * static_cast<double>(args_.valid_seq));
    for (std::int64_t device = 0; device < args_.num_devices; ++device) {
      double load = 0;
      for (std::int64_t e = device * per_device; e < (device + 1) * per_device; ++e) load += to_fraction * static_cast<double>(chosen[e]);
      const double term = args_.device_alpha * load / static_cast<double>(per_device) +
                          args_.communication_alpha * to_share * static_cast<double>(sent[device]);
      for (std::int64_t e = device * per_device; e < (device + 1) * per_device; ++e) c[e] += term;
    }
  }

  const BalanceLoss& args_;
  std::int64_t num_experts_;
  std::int64_t seq_;
  const T* scores_;
  const std::int32_t* experts_;
  T* d_scores_;
};

void balance_loss(Stream&, const BalanceLoss& args) {
  visit_float(args.scores.dtype, [&]<class T>() {
    std::vector<SequenceResult> results(static_cast<std::size_t>(args.batch));
    parallel_for(args.batch, [&](std::int64_t b) { results[static_cast<std::size_t>(b)] = SequenceBalance<T>(args, b).run(); });
    std::int64_t* counts = args.counts.as<std::int64_t>();
    double* loss = args.loss.as<double>();
    for (const SequenceResult& result : results) {
      for (std::size_t e = 0; e < result.counts.size(); ++e) counts[e] += result.counts[e];
      *loss += result.loss;
    }
  });
}

const RegisterCpu<BalanceLoss> registered{balance_loss};

}  // namespace
}  // namespace hadal::kernels
