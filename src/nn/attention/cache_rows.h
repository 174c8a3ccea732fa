// Rows that a sequence appends to while it is generated: one kind of cache entry, [tokens, width].
#pragma once

#include <algorithm>

#include "core/copy.h"

namespace hadal::nn {

/// All rows from the first token on, in memory for `max_rows` of them.
class CacheRows {
 public:
  CacheRows(std::int64_t max_rows, std::int64_t width, Storage storage) : data_(Tensor::empty({max_rows, width}, storage)) {}

  std::int64_t length() const { return length_; }
  /// Room for n more rows, to be written by the caller.
  View append(std::int64_t n) {
    HADAL_CHECK(length_ + n <= data_.shape()[0], "{} rows and {} more in a cache of {}", length_, n, data_.shape()[0]);
    length_ += n;
    return data_.view().rows(length_ - n, length_);
  }
  ConstView rows(std::int64_t begin, std::int64_t end) const { return data_.view().rows(begin, end); }
  View rows(std::int64_t begin, std::int64_t end) { return data_.view().rows(begin, end); }
  ConstView all() const { return rows(0, length_); }
  void truncate(std::int64_t length) { length_ = std::min(length_, length); }
  double bytes() const { return static_cast<double>(length_ * data_.shape()[1]) * static_cast<double>(size_of(data_.dtype())); }

 private:
  Tensor data_;
  std::int64_t length_ = 0;
};

/// The last rows only: at least `keep` + kMaxRollback of them (or all, while there are fewer), addressed by token.
class CacheTail {
 public:
  /// Tokens that may be taken back before the rows that are still needed might be gone.
  static constexpr std::int64_t kMaxRollback = 64;

  CacheTail(std::int64_t keep, std::int64_t width, Storage storage)
      : keep_(keep), data_(Tensor::empty({capacity(0), width}, storage)) {}

  std::int64_t first() const { return first_; }
  std::int64_t length() const { return length_; }

  /// Room for n more rows; older rows are dropped here, never between two appends, so that all rows of the last append stay with
  /// the `keep` rows before them.
  View append(std::int64_t n) {
    const std::int64_t kept = std::min(length_ - first_, keep_ + kMaxRollback);
    if (length_ - first_ + n > data_.shape()[0] || (data_.shape()[0] > capacity(0) && kept + n <= capacity(0))) {
      Tensor moved = Tensor::empty({capacity(kept + n), data_.shape()[1]}, data_.dtype(), data_.device());
      const ConstView old = data_.view().rows(length_ - first_ - kept, length_ - first_);
      Stream stream = stream_of(data_.device());
      copy(stream, old, moved.view().rows(0, kept));
      data_ = std::move(moved);
      first_ = length_ - kept;
    }
    length_ += n;
    return data_.view().rows(length_ - n - first_, length_ - first_);
  }
  /// Tokens [begin, end), begin >= first().
  View rows(std::int64_t begin, std::int64_t end) {
    HADAL_CHECK(begin >= first_ && end <= length_, "rows {} to {} of a tail that holds {} to {}", begin, end, first_, length_);
    return data_.view().rows(begin - first_, end - first_);
  }
  void truncate(std::int64_t length) {
    HADAL_CHECK(length == 0 || first_ <= std::max<std::int64_t>(0, length - keep_),
                "cannot go back from {} to {} tokens: a sparse cache goes back {} at most, or to 0", length_, length,
                kMaxRollback);
    length_ = length;
    if (length == 0) first_ = 0;
  }
  double bytes() const {
    return static_cast<double>((length_ - first_) * data_.shape()[1]) * static_cast<double>(size_of(data_.dtype()));
  }

 private:
  /// A multiple of what is kept, so that rows move seldom.
  std::int64_t capacity(std::int64_t rows) const { return std::max(2 * (keep_ + kMaxRollback), rows); }

  std::int64_t keep_;
  Tensor data_;
  std::int64_t first_ = 0;
  std::int64_t length_ = 0;
};

}  // namespace hadal::nn
