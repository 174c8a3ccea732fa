#include "kernels/rows.h"

#include <cstring>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"

namespace hadal::kernels {
namespace {

constexpr std::int64_t kRowGrain = 64;
constexpr std::int64_t kColumnGrain = 64;
constexpr std::int64_t kElementGrain = 1 << 15;

void gather_rows(Stream&, const GatherRows& args) {
  const std::size_t row_bytes = static_cast<std::size_t>(args.x.shape[1]) * size_of(args.x.dtype);
  const auto* x = static_cast<const char*>(args.x.data);
  auto* y = static_cast<char*>(args.y.data);
  const std::int32_t* index = args.index.as<std::int32_t>();
  const std::int64_t num_sources = args.x.shape[0];
  parallel_ranges(args.y.shape[0], kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int32_t source = index[r];
      HADAL_CHECK(source < num_sources, "row {} asks for {} of {}", r, source, num_sources);
      char* to = y + static_cast<std::size_t>(r) * row_bytes;
      if (source < 0) {
        std::memset(to, 0, row_bytes);
      } else {
        std::memcpy(to, x + static_cast<std::size_t>(source) * row_bytes, row_bytes);
      }
    }
  });
}

void spread_rows(Stream&, const SpreadRows& args) {
  const std::size_t row_bytes = static_cast<std::size_t>(args.x.shape[1]) * size_of(args.x.dtype);
  const auto* x = static_cast<const char*>(args.x.data);
  auto* y = static_cast<char*>(args.y.data);
  const std::int32_t* index = args.index.as<std::int32_t>();
  const std::int64_t k = args.index.shape[1], num_targets = args.y.shape[0];
  parallel_ranges(args.x.shape[0], kRowGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t pair = begin * k; pair < end * k; ++pair) {
      const std::int32_t target = index[pair];
      if (target < 0) continue;
      HADAL_CHECK(target < num_targets, "row {} goes to {} of {}", pair / k, target, num_targets);
      std::memcpy(y + static_cast<std::size_t>(target) * row_bytes, x + static_cast<std::size_t>(pair / k) * row_bytes, row_bytes);
    }
  });
}

void combine_rows(Stream&, const CombineRows& args) {
  visit_float(args.y.dtype, [&]<class T>() {
    const std::int64_t width = args.y.shape[1];
    const std::int64_t k = args.index.shape[1];
    const std::int64_t num_sources = args.x.shape[0];
    const T* x = args.x.as<T>();
    const T* base = args.base.empty() ? nullptr : args.base.as<T>();
    const std::int32_t* index = args.index.as<std::int32_t>();
    T* y = args.y.as<T>();
    const auto& ops = simd::vector_ops<T>();
    const std::size_t row_bytes = static_cast<std::size_t>(width) * sizeof(T);
    parallel_ranges(args.y.shape[0], kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        T* to = y + t * width;
        if (base != nullptr && base != y) std::memcpy(to, base + t * width, row_bytes);
        bool filled = base != nullptr;
        for (std::int64_t slot = 0; slot < k; ++slot) {
          const std::int64_t row = index[t * k + slot];
          if (row < 0) continue;
          HADAL_CHECK(row < num_sources, "row {} asks for {} of {}", t, row, num_sources);
          if (filled) {
            ops.add(width, x + row * width, to);
          } else {
            std::memcpy(to, x + row * width, row_bytes);
            filled = true;
          }
        }
        if (!filled) std::memset(to, 0, row_bytes);
      }
    });
  });
}

// Columns are split over threads, rows stay in order: every sum has one order.
void scatter_add_rows(Stream&, const ScatterAddRows& args) {
  visit_float(args.d_x.dtype, [&]<class T>() {
    const std::int64_t width = args.d_x.shape[1];
    const std::int64_t num_targets = args.d_x.shape[0];
    const T* d_y = args.d_y.as<T>();
    const std::int32_t* index = args.index.as<std::int32_t>();
    T* d_x = args.d_x.as<T>();
    const auto& ops = simd::vector_ops<T>();
    parallel_ranges(width, kColumnGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = 0; r < args.d_y.shape[0]; ++r) {
        const std::int32_t target = index[r];
        HADAL_CHECK(target < num_targets, "row {} goes to {} of {}", r, target, num_targets);
        if (target >= 0) ops.add(end - begin, d_y + r * width + begin, d_x + target * width + begin);
      }
    });
  });
}

void add(Stream&, const Add& args) {
  visit_float(args.y.dtype, [&]<class T>() {
    const T* a = args.a.as<T>();
    const T* b = args.b.as<T>();
    T* y = args.y.as<T>();
    parallel_ranges(args.y.numel(), kElementGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) y[i] = a[i] + b[i];
    });
  });
}

const RegisterCpu<GatherRows> registered_gather{gather_rows};
const RegisterCpu<SpreadRows> registered_spread{spread_rows};
const RegisterCpu<CombineRows> registered_combine{combine_rows};
const RegisterCpu<ScatterAddRows> registered_scatter{scatter_add_rows};
const RegisterCpu<Add> registered_add{add};

}  // namespace
}  // namespace hadal::kernels
