// Checks of a configuration's values against each other; ranges of single values are checked by the reader.
#pragma once

#include <string>
#include <vector>

#include "config/config.h"

namespace hadal::config {

/// A rule that does not hold: the keys it is about (at least one) and a sentence with all their values.
struct Violation {
  std::vector<std::string> keys;
  std::string message;
};

/// Every rule that does not hold. Rules of a part that is off (experts, NSA, YaRN, MTP) are not asked.
std::vector<Violation> find_violations(const Config& config);
/// The shape's rules alone.
std::vector<Violation> find_violations(const ModelSection& model);

/// Throws one UserError with all violations; for configs that do not come from load_config.
void validate_config(const Config& config);
void validate_model(const ModelSection& model);

}  // namespace hadal::config
