// The committed HF models of tests/parity/fixtures (made by tests/parity/make_fixtures.py), for the tests of this folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace hadal::test {

inline const std::vector<std::string> kFixtures = {"v3_groups",  "v3_direct_odd", "v3_yarn", "v3_yarn_old_config", "v2_greedy",
                                                   "v2_grouped", "v2_old_config", "nsa_mla", "nsa_mla_tied",       "nsa_gqa"};

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(HADAL_SOURCE_DIR) / "tests" / "parity" / "fixtures" / name;
}

}  // namespace hadal::test
