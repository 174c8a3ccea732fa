#include "kernels/cpu/simd/gated_pooling.h"

#include "kernels/cpu/simd/exp.h"
#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(GatedPooling, gated_pooling)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

constexpr std::int64_t kWidth = 64;

template <class T>
void largest(std::int64_t length, std::int64_t width, const T* logits, std::int64_t logits_stride, const T* position,
             std::int64_t position_stride, T* most) {
  for (std::int64_t c = 0; c < width; ++c) most[c] = logits[c] + position[c];
  for (std::int64_t j = 1; j < length; ++j) {
    const T* a = logits + j * logits_stride;
    const T* b = position + j * position_stride;
    for (std::int64_t c = 0; c < width; ++c) {
      const T value = a[c] + b[c];
      most[c] = value > most[c] ? value : most[c];
    }
  }
}

// sum_j e and sum_j e x with e = exp(logit - most).
template <class T>
void sums(std::int64_t length, std::int64_t width, const T* x, std::int64_t x_stride, const T* logits, std::int64_t logits_stride,
          const T* position, std::int64_t position_stride, const T* most, T* total, T* weighted) {
  for (std::int64_t c = 0; c < width; ++c) total[c] = weighted[c] = 0;
  for (std::int64_t j = 0; j < length; ++j) {
    const T* a = logits + j * logits_stride;
    const T* b = position + j * position_stride;
    const T* row = x + j * x_stride;
    for (std::int64_t c = 0; c < width; ++c) {
      const T e = exp_approx(a[c] + b[c] - most[c]);
      total[c] += e;
      weighted[c] += e * row[c];
    }
  }
}

template <class T>
void forward(std::int64_t length, std::int64_t width, const T* x, std::int64_t x_stride, const T* logits,
             std::int64_t logits_stride, const T* position, std::int64_t position_stride, T* y) {
  T most[kWidth], total[kWidth], weighted[kWidth];
  largest(length, width, logits, logits_stride, position, position_stride, most);
  sums(length, width, x, x_stride, logits, logits_stride, position, position_stride, most, total, weighted);
  for (std::int64_t c = 0; c < width; ++c) y[c] = weighted[c] / total[c];
}

template <class T>
void backward(std::int64_t length, std::int64_t width, const T* x, std::int64_t x_stride, const T* logits,
              std::int64_t logits_stride, const T* position, std::int64_t position_stride, const T* d_y, T* d_x,
              std::int64_t d_x_stride, T* d_logits, std::int64_t d_logits_stride, T* d_position) {
  T most[kWidth], total[kWidth], mean[kWidth];
  largest(length, width, logits, logits_stride, position, position_stride, most);
  sums(length, width, x, x_stride, logits, logits_stride, position, position_stride, most, total, mean);
  for (std::int64_t c = 0; c < width; ++c) {
    mean[c] /= total[c];
    total[c] = d_y[c] / total[c];
  }
  for (std::int64_t j = 0; j < length; ++j) {
    const T* a = logits + j * logits_stride;
    const T* b = position + j * position_stride;
    const T* row = x + j * x_stride;
    T* to_x = d_x + j * d_x_stride;
    T* to_logits = d_logits + j * d_logits_stride;
    T* to_position = d_position + j * position_stride;
    for (std::int64_t c = 0; c < width; ++c) {
      const T share = exp_approx(a[c] + b[c] - most[c]) * total[c];  // alpha dy
      const T d_logit = share * (row[c] - mean[c]);
      to_x[c] += share;
      to_logits[c] += d_logit;
      to_position[c] += d_logit;
    }
  }
}

}  // namespace

template <class T>
constexpr GatedPooling<T> kTable{forward<T>, backward<T>};

const GatedPooling<float>& gated_pooling_f32() { return kTable<float>; }
const GatedPooling<double>& gated_pooling_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
