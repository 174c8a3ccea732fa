// What every CUDA op bench shares: timing by events, the machine's two ceilings, one table of rows.
//
// A bench file registers itself:   const RegisterBench registered{"rms_norm", [](Table& table) { ... table.add(...); }};
// Times are medians of at least 20 after warm-up, never of data that the L2 cache still holds. Ops bound by memory are timed as a row of
// calls over copies of their operands that exceed the cache many times, divided by the number of calls: each call pays for its own bytes,
// the write-back of its results too, and for no others, and for what a launch costs in a step. Ops bound by arithmetic are timed one by
// one, after a sweep that only reads: one that writes would leave the cache full of lines whose write-back the op then pays for.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/copy.h"
#include "core/tensor.h"

namespace hadal::bench {

inline constexpr Device kGpu{DeviceKind::kCuda, 0};

/// Median milliseconds of body(), which enqueues work on `stream`, alone and with a cold cache.
double time_ms(Stream& stream, const std::function<void()>& body);

/// How many copies of an op's operands are needed, where one call moves so many bytes.
int turns_for(double bytes);
/// A tensor for each turn, with the same values.
class Copies {
 public:
  Copies(Tensor first, int turns);
  Tensor& operator[](int turn) { return tensors_[static_cast<std::size_t>(turn)]; }
  const Tensor& operator[](int turn) const { return tensors_[static_cast<std::size_t>(turn)]; }

 private:
  std::vector<Tensor> tensors_;
};
/// Milliseconds of one of many calls body(0), .. body(turns - 1), body(0) .. that follow one another on `stream`.
double time_turns_ms(Stream& stream, int turns, const std::function<void(int)>& body);

/// Normal(0, std) values on the device, f32 or bf16.
Tensor random_tensor(Stream& stream, Shape shape, DType dtype, std::uint64_t seed, double std = 1.0);

class Table {
 public:
  /// `only`: benches whose name holds this are run.
  explicit Table(Stream& stream);

  Stream& stream() { return stream_; }
  /// Measured in this process: TFLOP/s of an 8192^3 bf16 product, GB/s (read + written) of a device copy.
  double peak_tflops() const { return peak_tflops_; }
  double copy_gbs() const { return copy_gbs_; }

  /// A row of an op bound by arithmetic: operations of one call.
  void add_flops(const std::string& name, const std::string& shape, double ms, double flops);
  /// A row of an op bound by memory: bytes that one call must read and write.
  void add_bytes(const std::string& name, const std::string& shape, double ms, double bytes);
  /// Rows so far, as text for people and as one JSON object a line (for tests/gpu/compare.py, which joins them with the peers').
  void print() const;
  void write_json(const std::string& path) const;

 private:
  struct Row {
    std::string name, shape;
    double ms, rate, fraction;
    bool is_flops;
  };
  void add(Row row);

  Stream& stream_;
  double peak_tflops_ = 0, copy_gbs_ = 0;
  std::vector<Row> rows_;
};

using BenchBody = void (*)(Table&);
struct RegisterBench {
  RegisterBench(const char* name, BenchBody body);
};

}  // namespace hadal::bench
