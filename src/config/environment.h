// Variables of the environment in values of a configuration, where they are written out:
//
//   run:
//     dir: ${env:SCRATCH}/runs/a
//     seed: ${env:SEED:-1}        # 1 when SEED is not set or empty
//
// Nowhere else does the environment reach a configuration. Keys are never expanded. In flow form ({seed: "${env:SEED}"}) YAML wants
// quotes around the braces; a value that is one reference alone means what it would mean without them.
#pragma once

#include <string>

#include "config/problems.h"

namespace hadal::config {

struct Expanded {
  std::string text;
  bool one_reference = false;  ///< the whole scalar was one reference
};

/// The text of a scalar that stands at `place`, each reference replaced. What is wrong (a variable that is not set, another form of
/// ${...}, a value that itself holds "${") goes to `problems` with the reference's own place.
Expanded expand_environment(const std::string& text, const Place& place, Problems& problems);

}  // namespace hadal::config
