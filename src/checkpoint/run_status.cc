#include "checkpoint/run_status.h"

#include <nlohmann/json.hpp>

#include "core/file.h"

namespace hadal::checkpoint {

void write_run_status(const std::filesystem::path& run_dir, const RunStatus& status) {
  nlohmann::ordered_json json;
  json["state"] = status.state;
  json["step"] = status.step;
  json["checkpoint"] = status.checkpoint.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(status.checkpoint);
  json["exit_code"] = status.exit_code;
  write_file_atomically(run_dir / "status.json", json.dump() + "\n");
}

}  // namespace hadal::checkpoint
