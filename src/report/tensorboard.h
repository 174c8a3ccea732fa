// TensorBoard event files (spec/interop.md 9.1): scalars and one text, appended record by record.
// One file per start of a run; a later start writes a new file whose name sorts after the old ones and whose second record says
// that the session starts at the resumed step, so that points of the old file beyond it are dropped by TensorBoard.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/file.h"

namespace hadal::report {

/// CRC-32C (Castagnoli), reflected; "123456789" gives 0xE3069283.
std::uint32_t crc32c(std::string_view bytes);

/// A record: length, masked CRC of the length, data, masked CRC of the data.
std::string tensorboard_record(std::string_view event);

/// Serialized Event messages.
std::string version_event(double wall_time);
std::string session_start_event(double wall_time, std::int64_t step);
std::string scalars_event(double wall_time, std::int64_t step, std::span<const std::pair<std::string, float>> scalars);
std::string text_event(double wall_time, std::int64_t step, std::string_view tag, std::string_view text);

class TensorboardWriter {
 public:
  /// Makes `directory` and a new event file in it. `resumed_step` is the step of the loaded checkpoint.
  TensorboardWriter(const std::filesystem::path& directory, double wall_time, std::optional<std::int64_t> resumed_step);

  /// Tags are "group/name"; nothing for an empty list.
  void scalars(double wall_time, std::int64_t step, std::span<const std::pair<std::string, float>> values);
  void text(double wall_time, std::int64_t step, std::string_view tag, std::string_view text);
  /// Writes what is pending; also done every 10 seconds of wall time.
  void flush();
  ~TensorboardWriter();
  TensorboardWriter(const TensorboardWriter&) = delete;
  TensorboardWriter& operator=(const TensorboardWriter&) = delete;
  const std::filesystem::path& path() const { return file_.path(); }

 private:
  void add(double wall_time, std::string_view event);

  File file_;
  std::string pending_;
  double last_flush_ = 0.0;
};

}  // namespace hadal::report
