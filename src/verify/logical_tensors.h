// Values by logical tensor (HF name), put together from the slices that the ranks of a layout hold: what layouts are compared by.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "nn/parameter.h"

namespace hadal::verify {

class LogicalTensors {
 public:
  /// Adds what a parameter-shaped tensor (f64) holds of each logical tensor. Thread-safe. An element that is added twice, or with NaN, is
  /// a reason of its own in `compare`.
  void add(const nn::Parameter& parameter, ConstView value);

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
    std::vector<char> times;  ///< added, by element
  };

  std::mutex mutex_;
  std::map<std::string, Values> tensors_;
};

}  // namespace hadal::verify
