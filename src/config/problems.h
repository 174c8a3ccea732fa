// Where a value stands, and the list of everything that is wrong with a configuration, raised as one error.
#pragma once

#include <memory>
#include <string>
#include <vector>

namespace hadal::config {

/// A YAML file, or the text of one command-line override.
struct Source {
  std::string name;  ///< path as the user wrote it; "command line" for overrides
  std::string text;
  bool is_file = true;
  bool resolved = false;  ///< what the program wrote itself: nothing outside of the text has a say
};

/// A place in a source; lines and columns (bytes) count from 1. Without a source: the default.
struct Place {
  std::shared_ptr<const Source> source;
  int line = 0;
  int column = 0;

  /// "configs/a.yaml:14:7", "command line: optim.lr=3", "default".
  std::string text() const;
};

/// Collects errors; each is told with its place, the source line and a caret under the column.
class Problems {
 public:
  void add(const Place& place, const std::string& message);
  bool empty() const { return count_ == 0; }
  /// Throws one UserError with all of them (the first 50 in full).
  [[noreturn]] void raise() const;

 private:
  std::vector<std::string> messages_;
  std::size_t count_ = 0;
};

}  // namespace hadal::config
