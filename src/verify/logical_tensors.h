// Values by logical tensor (HF name), put together from the slices that the ranks of a layout hold: what layouts are compared by.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "nn/parameter.h"

namespace hadal::verify {

/// Who adds an element.
enum class Holders {
  kOne,   ///< one rank, for all that have it: a second one is a problem
  kMany,  ///< every rank that has a copy: copies that are not the same bits are a problem
};

class LogicalTensors {
 public:
  explicit LogicalTensors(Holders holders) : holders_(holders) {}

  /// Adds what a parameter-shaped tensor (f64 or f32) holds of each logical tensor. Thread-safe. What is wrong with it is told by
  /// `compare`.
  void add(const nn::Parameter& parameter, ConstView value);
  /// Everything that was added, for another process.
  std::string bytes() const;
  /// Adds what another process has. Bytes of `bytes()`.
  void merge(std::string_view bytes);

  struct Difference {
    double worst = 0;    ///< max |a - b| / max(max |b|, 1e-12 of the largest element of all of b), over tensors
    std::string tensor;  ///< of the worst
    std::string problem; ///< a tensor that one side lacks, elements that no rank or two ranks hold; empty when all is well
  };
  /// This against what one rank has.
  Difference compare(const LogicalTensors& reference) const;

 private:
  struct Values {
    Shape shape{0};
    std::vector<double> values;
    std::vector<char> times;  ///< added, by element; of copies once
  };

  Values& at(const std::string& name, const Shape& shape);
  void put(const std::string& name, Values& to, std::size_t element, double value);

  Holders holders_;
  std::mutex mutex_;
  std::map<std::string, Values> tensors_;
  std::string differing_copy_;  ///< of the first copies that are not the same
};

}  // namespace hadal::verify
