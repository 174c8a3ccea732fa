#include "kernels/adamw.h"

#include <cmath>
#include <optional>
#include <vector>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/adamw.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"

HADAL_SIMD_PICK(AdamWLoop, adamw_loop)

namespace hadal::kernels {
namespace {

constexpr std::int64_t kGrain = 1 << 14;

/// What gradients are multiplied by; none where the norm is not finite and nothing is to be updated.
std::optional<double> grad_factor(const AdamW& args) {
  if (args.grad_norm_squared.empty()) return 1.0;
  const double norm = std::sqrt(*args.grad_norm_squared.as<double>());
  if (!std::isfinite(norm)) return std::nullopt;
  return args.clip_norm > 0 && norm > args.clip_norm ? args.clip_norm / norm : 1.0;
}

void adamw(Stream&, const AdamW& args) {
  const std::optional<double> factor = grad_factor(args);
  if (!factor) return;
  visit_float(args.value.dtype, [&]<class T>() {
    const double* const rates = args.rates.as<double>();
    const double lr = rates[0], correction1 = rates[1], correction2 = rates[2];
    const simd::AdamWFactors<T> factors{
        static_cast<T>(*factor),          static_cast<T>(args.beta1),
        static_cast<T>(args.beta2),       static_cast<T>(lr / correction1),
        static_cast<T>(1.0 / std::sqrt(correction2)), static_cast<T>(args.eps),
        static_cast<T>(1.0 - lr * args.weight_decay), static_cast<T>(args.ema_decay)};
    const T* grad = args.grad.as<T>();
    T* value = args.value.as<T>();
    T* ema = args.ema.empty() ? nullptr : args.ema.as<T>();
    Bf16* working = args.working.empty() ? nullptr : args.working.as<Bf16>();
    const auto& loop = simd::adamw_loop<T>();
    const auto over = [&](auto* m, auto* v, auto update) {
      parallel_ranges(args.value.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        update(end - begin, factors, grad + begin, value + begin, m + begin, v + begin, ema == nullptr ? nullptr : ema + begin);
        if (working == nullptr) return;
        for (std::int64_t i = begin; i < end; ++i) working[i] = to_bf16(static_cast<float>(value[i]));
      });
    };
    if (args.m.dtype == DType::kBf16) {
      over(&args.m.as<Bf16>()->bits, &args.v.as<Bf16>()->bits, loop.update_bf16);
    } else {
      over(args.m.as<T>(), args.v.as<T>(), loop.update);
    }
  });
}

void sum_squares(Stream&, const SumSquares& args) {
  visit_float(args.x.dtype, [&]<class T>() {
    const T* x = args.x.as<T>();
    const std::int64_t n = args.x.numel();
    std::vector<double> partial(static_cast<std::size_t>((n + kGrain - 1) / kGrain));
    parallel_ranges(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
      partial[static_cast<std::size_t>(begin / kGrain)] = simd::vector_ops<T>().sum_squares(end - begin, x + begin);
    });
    double sum = 0;
    for (const double p : partial) sum += p;
    *args.result.as<double>() += sum;
  });
}

const RegisterCpu<AdamW> registered{adamw};
const RegisterCpu<SumSquares> registered_sum{sum_squares};

}  // namespace
}  // namespace hadal::kernels
