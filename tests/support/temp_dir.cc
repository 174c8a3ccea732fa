#include "tests/support/temp_dir.h"

#include <stdlib.h>

#include <string>

#include "core/error.h"

namespace hadal::test {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "hadal-test-XXXXXX").string();
  HADAL_CHECK(::mkdtemp(pattern.data()) != nullptr, "mkdtemp {}", pattern);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace hadal::test
