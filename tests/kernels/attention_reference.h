// Plain O(S^2) attention in f64, written apart from the kernels, and buffers with guard bytes around strided heads.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "core/rng.h"
#include "core/tensor.h"
#include "kernels/heads.h"

namespace hadal::test {

using kernels::ConstHeads;
using kernels::Heads;
using std::int64_t;

/// [tokens, heads, width] inside a larger buffer: `gap` unused elements after each head and `gap` before the first. The unused
/// elements hold a pattern that must survive.
template <class T>
class GuardedHeads {
 public:
  GuardedHeads(int64_t tokens, int64_t heads, int64_t width, int64_t gap = 3)
      : tokens_(tokens),
        heads_(heads),
        width_(width),
        gap_(gap),
        data_(static_cast<std::size_t>(gap + tokens * heads * (width + gap)), kPattern) {}

  Heads view() {
    Heads result;
    result.data = data_.data() + gap_;
    result.dtype = kDTypeOf<T>;
    result.tokens = tokens_;
    result.heads = heads_;
    result.width = width_;
    result.token_stride = heads_ * (width_ + gap_);
    result.head_stride = width_ + gap_;
    return result;
  }
  T& at(int64_t token, int64_t head, int64_t i) {
    return data_[static_cast<std::size_t>(gap_ + (token * heads_ + head) * (width_ + gap_) + i)];
  }
  T at(int64_t token, int64_t head, int64_t i) const { return const_cast<GuardedHeads*>(this)->at(token, head, i); }

  void fill_random(std::uint64_t seed, double spread = 1.0) {
    const Random random(seed, RandomPurpose::kSynthetic);
    std::uint64_t index = 0;
    for (int64_t t = 0; t < tokens_; ++t) {
      for (int64_t h = 0; h < heads_; ++h) {
        for (int64_t i = 0; i < width_; ++i) at(t, h, i) = static_cast<T>(spread * random.normal(index++));
      }
    }
  }
  bool guards_intact() const {
    for (int64_t i = 0; i < static_cast<int64_t>(data_.size()); ++i) {
      const int64_t column = i < gap_ ? width_ : (i - gap_) % (width_ + gap_);
      if (column >= width_ && data_[static_cast<std::size_t>(i)] != kPattern) return false;
    }
    return true;
  }
  int64_t tokens() const { return tokens_; }
  int64_t heads() const { return heads_; }
  int64_t width() const { return width_; }
  const std::vector<T>& raw() const { return data_; }

 private:
  static constexpr T kPattern = T{-77};
  int64_t tokens_, heads_, width_, gap_;
  std::vector<T> data_;
};

/// max |a - b| / max |b| (design.md 4); absolute where b is zero but for rounding; a non-finite element gives infinity.
template <class A, class B>
double relative_error(const GuardedHeads<A>& a, const GuardedHeads<B>& b) {
  double difference = 0, largest = 0;
  for (int64_t t = 0; t < b.tokens(); ++t) {
    for (int64_t h = 0; h < b.heads(); ++h) {
      for (int64_t i = 0; i < b.width(); ++i) {
        const auto x = static_cast<double>(a.at(t, h, i)), y = static_cast<double>(b.at(t, h, i));
        if (!std::isfinite(x) || !std::isfinite(y)) return std::numeric_limits<double>::infinity();
        difference = std::max(difference, std::abs(x - y));
        largest = std::max(largest, std::abs(y));
      }
    }
  }
  return largest < 1e-14 ? difference : difference / largest;
}

/// Everything that goes into and comes out of attention, forward and backward.
template <class T>
struct AttentionBuffers {
  AttentionBuffers(int64_t b, int64_t s, int64_t sk, int64_t h, int64_t hk, int64_t w, int64_t ws, int64_t dv)
      : batch(b),
        q(b * s, h, w + ws),
        k(b * sk, hk, w),
        k_shared(b * sk, 1, ws),
        v(b * sk, hk, dv),
        d_o(b * s, h, dv),
        o(b * s, h, dv),
        d_q(b * s, h, w + ws),
        d_k(b * sk, hk, w),
        d_k_shared(b * sk, 1, ws),
        d_v(b * sk, hk, dv),
        lse(b * s, h, 1, 0) {
    q.fill_random(1);
    k.fill_random(2);
    k_shared.fill_random(3);
    v.fill_random(4);
    d_o.fill_random(5);
  }
  bool has_shared() const { return k_shared.width() > 0; }
  ConstHeads shared() { return has_shared() ? ConstHeads(k_shared.view()) : ConstHeads{}; }
  Heads d_shared() { return has_shared() ? d_k_shared.view() : Heads{}; }
  View lse_view() { return {lse.view().data, kDTypeOf<T>, {lse.tokens(), lse.heads()}, kCpu}; }
  bool guards_intact() const {
    return o.guards_intact() && d_q.guards_intact() && d_k.guards_intact() && d_k_shared.guards_intact() && d_v.guards_intact();
  }

  int64_t batch;
  GuardedHeads<T> q, k, k_shared, v, d_o, o, d_q, d_k, d_k_shared, d_v, lse;
};

/// visible(b, t, h, j): does head h of token t in sequence b see key j.
using Visible = std::function<bool(int64_t, int64_t, int64_t, int64_t)>;

/// Fills o, lse and the gradients of `x` by the textbook formulas.
inline void reference_attention(AttentionBuffers<double>& x, double scale, const Visible& visible) {
  const int64_t tokens = x.q.tokens() / x.batch, keys = x.k.tokens() / x.batch, heads = x.q.heads();
  const int64_t group = heads / x.k.heads(), w = x.k.width(), ws = x.k_shared.width(), dv = x.v.width();
  for (auto* gradient : {&x.d_q, &x.d_k, &x.d_k_shared, &x.d_v}) {
    for (int64_t t = 0; t < gradient->tokens(); ++t) {
      for (int64_t h = 0; h < gradient->heads(); ++h) {
        for (int64_t i = 0; i < gradient->width(); ++i) gradient->at(t, h, i) = 0;
      }
    }
  }
  for (int64_t b = 0; b < x.batch; ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t row = b * tokens + t, kv = h / group, first = b * keys;
        std::vector<double> p(static_cast<std::size_t>(keys), 0.0);
        double most = -std::numeric_limits<double>::infinity(), total = 0;
        for (int64_t j = 0; j < keys; ++j) {
          double score = 0;
          for (int64_t i = 0; i < w; ++i) score += x.q.at(row, h, i) * x.k.at(first + j, kv, i);
          for (int64_t i = 0; i < ws; ++i) score += x.q.at(row, h, w + i) * x.k_shared.at(first + j, 0, i);
          p[static_cast<std::size_t>(j)] = visible(b, t, h, j) ? scale * score : -std::numeric_limits<double>::infinity();
          most = std::max(most, p[static_cast<std::size_t>(j)]);
        }
        const bool none = !std::isfinite(most);
        for (double& value : p) total += value = none ? 0.0 : std::exp(value - most);
        x.lse.at(row, h, 0) = none ? most : most + std::log(total);
        for (double& value : p) value = none ? 0.0 : value / total;
        double delta = 0;
        for (int64_t i = 0; i < dv; ++i) {
          double sum = 0;
          for (int64_t j = 0; j < keys; ++j) sum += p[static_cast<std::size_t>(j)] * x.v.at(first + j, kv, i);
          x.o.at(row, h, i) = sum;
          delta += sum * x.d_o.at(row, h, i);
        }
        for (int64_t j = 0; j < keys; ++j) {
          const double pj = p[static_cast<std::size_t>(j)];
          if (pj == 0) continue;
          double dp = 0;
          for (int64_t i = 0; i < dv; ++i) {
            dp += x.d_o.at(row, h, i) * x.v.at(first + j, kv, i);
            x.d_v.at(first + j, kv, i) += pj * x.d_o.at(row, h, i);
          }
          const double ds = scale * pj * (dp - delta);
          for (int64_t i = 0; i < w; ++i) {
            x.d_q.at(row, h, i) += ds * x.k.at(first + j, kv, i);
            x.d_k.at(first + j, kv, i) += ds * x.q.at(row, h, i);
          }
          for (int64_t i = 0; i < ws; ++i) {
            x.d_q.at(row, h, w + i) += ds * x.k_shared.at(first + j, 0, i);
            x.d_k_shared.at(first + j, 0, i) += ds * x.q.at(row, h, w + i);
          }
        }
      }
    }
  }
}

/// Compares outputs and gradients of `x` with those of `wanted`.
template <class T>
void expect_same_attention(const AttentionBuffers<T>& x, const AttentionBuffers<double>& wanted, double tolerance,
                           bool gradients = true) {
  EXPECT_TRUE(x.guards_intact());
  EXPECT_LE(relative_error(x.o, wanted.o), tolerance);
  for (int64_t t = 0; t < x.lse.tokens(); ++t) {
    for (int64_t h = 0; h < x.lse.heads(); ++h) {
      const auto a = static_cast<double>(x.lse.at(t, h, 0)), b = wanted.lse.at(t, h, 0);
      if (std::isinf(b)) {
        EXPECT_EQ(a, b) << "lse of token " << t << " head " << h;
      } else {
        EXPECT_NEAR(a, b, tolerance * std::max(1.0, std::abs(b))) << "lse of token " << t << " head " << h;
      }
    }
  }
  if (!gradients) return;
  EXPECT_LE(relative_error(x.d_q, wanted.d_q), tolerance);
  EXPECT_LE(relative_error(x.d_k, wanted.d_k), tolerance);
  EXPECT_LE(relative_error(x.d_v, wanted.d_v), tolerance);
  if (x.has_shared()) {
    EXPECT_LE(relative_error(x.d_k_shared, wanted.d_k_shared), tolerance);
  }
}

/// Central differences (fourth order) of loss() with respect to every element of `x`, into `gradient`.
inline void numeric_gradient(GuardedHeads<double>& x, GuardedHeads<double>& gradient, const std::function<double()>& loss) {
  constexpr double kStep = 1e-3;
  for (int64_t t = 0; t < x.tokens(); ++t) {
    for (int64_t h = 0; h < x.heads(); ++h) {
      for (int64_t i = 0; i < x.width(); ++i) {
        double& value = x.at(t, h, i);
        const double kept = value;
        const auto at = [&](double offset) {
          value = kept + offset * kStep;
          return loss();
        };
        gradient.at(t, h, i) = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * kStep);
        value = kept;
      }
    }
  }
}

inline double weighted_sum(const GuardedHeads<double>& y, const GuardedHeads<double>& weight) {
  double sum = 0;
  for (int64_t t = 0; t < y.tokens(); ++t) {
    for (int64_t h = 0; h < y.heads(); ++h) {
      for (int64_t i = 0; i < y.width(); ++i) sum += y.at(t, h, i) * weight.at(t, h, i);
    }
  }
  return sum;
}

}  // namespace hadal::test
