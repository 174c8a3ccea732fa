// Numbers behind rotary position embedding and its YaRN extension (spec/model.md 4).
#pragma once

#include <cstdint>

namespace hadal::nn {

struct YarnOptions {
  double factor = 1.0;  ///< s; 1 turns YaRN off
  std::int64_t original_length = 4096;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 1.0;
};

struct RopeOptions {
  double theta = 10000.0;
  YarnOptions yarn;
};

}  // namespace hadal::nn
