#include "kernels/cpu/simd/gated_pooling.h"

#include "kernels/cpu/simd/exp2.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector.h"

HADAL_SIMD_TABLE(GatedPooling, gated_pooling)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

using std::int64_t;

// Reads and writes of a whole vector, or of one channel where fewer are left: the same code serves both.
template <class T>
struct Whole {
  using Lanes = Vector<T>;
  static constexpr int64_t kCount = kLanesOf<T>;
  static Lanes get(const T* from) { return load(from); }
  static void put(T* to, Lanes value) { store(to, value); }
  static Lanes exp2(Lanes x) { return exp2_of(x); }
};
template <class T>
struct Single {
  using Lanes = T;
  static constexpr int64_t kCount = 1;
  static Lanes get(const T* from) { return *from; }
  static void put(T* to, Lanes value) { *to = value; }
  static Lanes exp2(Lanes x) { return exp2_of(broadcast(x))[0]; }
};

template <class T>
constexpr T kLog2E = static_cast<T>(1.4426950408889634074);

// Softmax statistics of one group of channels: 2^(log2 e (logit + position) - most) sums to `total`, times x to `weighted`.
template <class T, class Access>
struct Pooled {
  using Lanes = typename Access::Lanes;

  Pooled(const PoolingBlock<T>& block, int64_t c) {
    most = logit(block, 0, c);
    for (int64_t j = 1; j < block.length; ++j) {
      const Lanes value = logit(block, j, c);
      most = value <= most ? most : value;
    }
    total = weighted = Lanes{};
    for (int64_t j = 0; j < block.length; ++j) {
      const Lanes e = Access::exp2(logit(block, j, c) - most);
      total += e;
      weighted += e * Access::get(block.x + j * block.x_stride + c);
    }
  }
  static Lanes logit(const PoolingBlock<T>& block, int64_t j, int64_t c) {
    return (Access::get(block.logits + j * block.logits_stride + c) +
            Access::get(block.position + j * block.position_stride + c)) *
           kLog2E<T>;
  }

  Lanes most, total, weighted;
};

template <class T, class Access>
void pool(const PoolingBlock<T>& block, int64_t c, T* y) {
  const Pooled<T, Access> pooled(block, c);
  Access::put(y + c, pooled.weighted / pooled.total);
}

template <class T, class Access>
void pool_gradient(const PoolingBlock<T>& block, int64_t c, const T* d_y, const PoolingGradient<T>& to) {
  using Lanes = typename Access::Lanes;
  const Pooled<T, Access> pooled(block, c);
  const Lanes mean = pooled.weighted / pooled.total, factor = Access::get(d_y + c) / pooled.total;
  const auto add = [](T* sum, Lanes value) { Access::put(sum, Access::get(sum) + value); };
  for (int64_t j = 0; j < block.length; ++j) {
    const Lanes share = Access::exp2(Pooled<T, Access>::logit(block, j, c) - pooled.most) * factor;  // alpha d_y
    const Lanes d_logit = share * (Access::get(block.x + j * block.x_stride + c) - mean);
    add(to.d_x + j * to.d_x_stride + c, share);
    add(to.d_logits + j * to.d_logits_stride + c, d_logit);
    add(to.d_position + j * block.position_stride + c, d_logit);
  }
}

template <class T>
void forward(const PoolingBlock<T>& block, T* y) {
  int64_t c = 0;
  for (; c + kLanesOf<T> <= block.width; c += kLanesOf<T>) pool<T, Whole<T>>(block, c, y);
  for (; c < block.width; ++c) pool<T, Single<T>>(block, c, y);
}

template <class T>
void backward(const PoolingBlock<T>& block, const T* d_y, const PoolingGradient<T>& to) {
  int64_t c = 0;
  for (; c + kLanesOf<T> <= block.width; c += kLanesOf<T>) pool_gradient<T, Whole<T>>(block, c, d_y, to);
  for (; c < block.width; ++c) pool_gradient<T, Single<T>>(block, c, d_y, to);
}

}  // namespace

template <class T>
static constexpr GatedPooling<T> kTable{forward<T>, backward<T>};

const GatedPooling<float>& gated_pooling_f32() { return kTable<float>; }
const GatedPooling<double>& gated_pooling_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
