// Where the gradients of keys and values go: each task sums those of its own rows in private memory, and what several tasks
// share is added afterwards in a fixed order. No atomics, same bits for any number of threads.
#pragma once

#include <vector>

#include "core/parallel_for.h"
#include "kernels/cpu/attention_inputs.h"
#include "kernels/cpu/simd/vector_ops.h"

namespace hadal::kernels::cpu {

/// Per row of tokens [t0, t1): lse in base 2 (+inf where no key is visible, so that p = 0) and delta = <d_o, o>.
template <class T, class Args>
void row_statistics(const AttentionInputs<T>& in, const Args& args, int64_t b, int64_t kv, int64_t t0, int64_t t1, T* lse,
                    T* delta) {
  const T* const stored = args.lse.template as<T>();
  T dots[kStripRows];
  for (int64_t g = 0; g < in.group; ++g) {
    const int64_t head = kv * in.group + g;
    for (int64_t t = t0; t < t1; t += kStripRows) {
      const int64_t token = b * in.tokens + t, count = std::min(kStripRows, t1 - t);
      in.tiles.row_dots(count, in.value_width, in.at(args.d_o, token, head), args.d_o.token_stride, in.at(args.o, token, head),
                        args.o.token_stride, dots);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = (t - t0 + i) * in.group + g;
        const T value = stored[(token + i) * in.heads + head];
        lse[row] = value == kMasked<T> ? -kMasked<T> : value * kLog2E<T>;
        delta[row] = dots[i];
      }
    }
  }
}

/// d_k, d_k_shared and d_v of every (sequence, key head), summed over `parts` tasks each; written, or added (args.add_to_keys).
template <class T>
class KeyGradients {
 public:
  template <class Args>
  KeyGradients(const AttentionInputs<T>& in, int64_t parts, const Args& args)
      : parts_(parts), add_(args.add_to_keys), d_k_(args.d_k), d_k_shared_(args.d_k_shared), d_v_(args.d_v) {
    const int64_t tasks = in.batch * in.key_heads * parts;
    if (parts > 1) {
      partial_ = Tensor::empty({tasks, in.keys * (in.width_padded + in.value_padded)}, kDTypeOf<T>);
    } else if (shared_apart(in)) {
      partial_ = Tensor::empty({tasks, in.keys * in.shared_width}, kDTypeOf<T>);
    }
  }

  /// Elements that `start` takes from a task's scratch.
  static int64_t scratch_elements(const AttentionInputs<T>& in) {
    return Scratch<T>::padded(in.keys * (in.width_padded + in.value_padded));
  }

  struct Sums {
    T* keys;    ///< [keys, width_padded], in units of ln 2 (queries were packed times scale * log2 e)
    T* values;  ///< [keys, value_padded]
  };
  /// Zeroed sums of one task.
  Sums start(const AttentionInputs<T>& in, Scratch<T>& scratch, int64_t b, int64_t kv, int64_t part) {
    const int64_t size = in.keys * (in.width_padded + in.value_padded);
    T* sums = parts_ > 1 ? partial_.template as<T>() + ((b * in.key_heads + kv) * parts_ + part) * size : scratch.take(size);
    std::fill(sums, sums + size, T{0});
    return {sums, sums + in.keys * in.width_padded};
  }

  /// Writes out what belongs to this task alone.
  void finish(const AttentionInputs<T>& in, const T* d_keys, const T* d_values, int64_t b, int64_t kv) {
    if (parts_ > 1) return;
    write(in, d_keys, d_values, b, kv, 0, in.keys);
    if (in.shared_width == 0) return;
    if (shared_apart(in)) {
      in.tiles.pack_rows(in.keys, in.shared_width, d_keys + in.key_width, in.width_padded, kLn2<T>,
                         partial_.template as<T>() + (b * in.key_heads + kv) * in.keys * in.shared_width, in.shared_width,
                         in.shared_width);
    } else {
      write_rows(in, in.keys, in.shared_width, d_keys + in.key_width, in.width_padded, kLn2<T>,
                 in.at(d_k_shared_, b * in.keys, 0), d_k_shared_.token_stride);
    }
  }

  /// After all tasks: sums over parts, and over key heads for the shared key.
  void reduce(const AttentionInputs<T>& in) {
    if (parts_ > 1) {
      reduce_parts(in);
    } else if (shared_apart(in)) {
      reduce_shared(in);
    }
  }

 private:
  static constexpr int64_t kRows = 64;  // keys of a chunk of the reduction

  bool shared_apart(const AttentionInputs<T>& in) const { return in.shared_width > 0 && in.key_heads > 1; }

  void write(const AttentionInputs<T>& in, const T* d_keys, const T* d_values, int64_t b, int64_t kv, int64_t begin,
             int64_t end) {
    write_rows(in, end - begin, in.key_width, d_keys, in.width_padded, kLn2<T>, in.at(d_k_, b * in.keys + begin, kv),
               d_k_.token_stride);
    write_rows(in, end - begin, in.value_width, d_values, in.value_padded, T{1}, in.at(d_v_, b * in.keys + begin, kv),
               d_v_.token_stride);
  }

  /// to = factor * from, or to += it; row by row.
  void write_rows(const AttentionInputs<T>& in, int64_t rows, int64_t width, const T* from, int64_t from_ld, T factor, T* to,
                  int64_t to_ld) {
    if (!add_) {
      in.tiles.pack_rows(rows, width, from, from_ld, factor, to, to_ld, width);
      return;
    }
    const auto& vector = simd::vector_ops<T>();
    for (int64_t row = 0; row < rows; ++row) vector.axpy(width, factor, from + row * from_ld, to + row * to_ld);
  }

  void reduce_parts(const AttentionInputs<T>& in) {
    const auto& vector = simd::vector_ops<T>();
    const int64_t wp = in.width_padded, vp = in.value_padded, size = in.keys * (wp + vp);
    const int64_t chunks = (in.keys + kRows - 1) / kRows;
    parallel_for(in.batch * chunks, [&](int64_t task) {
      const int64_t b = task / chunks, begin = task % chunks * kRows, end = std::min(begin + kRows, in.keys), rows = end - begin;
      for (int64_t kv = 0; kv < in.key_heads; ++kv) {
        T* const first = partial_.template as<T>() + (b * in.key_heads + kv) * parts_ * size;
        T* const keys = first + begin * wp;
        T* const values = first + in.keys * wp + begin * vp;
        for (int64_t part = 1; part < parts_; ++part) {
          vector.add(rows * wp, keys + part * size, keys);
          vector.add(rows * vp, values + part * size, values);
        }
        write(in, keys, values, b, kv, begin, end);
        for (int64_t j = 0; in.shared_width > 0 && j < rows; ++j) {
          T* const to = in.at(d_k_shared_, b * in.keys + begin + j, 0);
          const T* const from = keys + j * wp + in.key_width;
          if (kv == 0 && !add_) std::fill(to, to + in.shared_width, T{0});
          vector.axpy(in.shared_width, kLn2<T>, from, to);
        }
      }
    });
  }

  void reduce_shared(const AttentionInputs<T>& in) {
    const auto& vector = simd::vector_ops<T>();
    const int64_t chunks = (in.keys + kRows - 1) / kRows;
    parallel_for(in.batch * chunks, [&](int64_t task) {
      const int64_t b = task / chunks, begin = task % chunks * kRows, end = std::min(begin + kRows, in.keys);
      const T* const first = partial_.template as<T>() + b * in.key_heads * in.keys * in.shared_width;
      for (int64_t j = begin; j < end; ++j) {
        T* const to = in.at(d_k_shared_, b * in.keys + j, 0);
        if (!add_) std::fill(to, to + in.shared_width, T{0});
        for (int64_t kv = 0; kv < in.key_heads; ++kv) {
          vector.add(in.shared_width, first + (kv * in.keys + j) * in.shared_width, to);
        }
      }
    });
  }

  int64_t parts_;
  bool add_;
  Heads d_k_, d_k_shared_, d_v_;
  Tensor partial_;
};

}  // namespace hadal::kernels::cpu
