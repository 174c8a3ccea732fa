#include "report/tensorboard.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/log.h"

namespace hadal::report {
namespace {

constexpr double kFlushSeconds = 10.0;
constexpr std::string_view kPrefix = "events.out.tfevents.";

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0x82F63B78u : 0u);
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<std::uint32_t, 256> kCrcTable = make_crc_table();

std::uint32_t masked_crc32c(std::string_view bytes) {
  const std::uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

/// Little-endian bytes of a number.
template <class T>
std::string little_endian(T value) {
  std::array<char, sizeof(T)> bytes{};
  std::memcpy(bytes.data(), &value, sizeof(T));
  return std::string(bytes.data(), bytes.size());
}
static_assert(std::endian::native == std::endian::little, "event files are written as memory lies");

std::string varint(std::uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text += static_cast<char>((value & 0x7f) | 0x80);
  return text + static_cast<char>(value);
}

/// A length-delimited protobuf field.
std::string field(char tag, std::string_view bytes) { return tag + varint(bytes.size()) + std::string(bytes); }

std::string event_head(double wall_time, std::int64_t step) {
  std::string head = '\x09' + little_endian(wall_time);
  if (step != 0) head += '\x10' + varint(static_cast<std::uint64_t>(step));
  return head;
}

/// Seconds for a new file's name: now, or one more than the newest file there.
std::uint64_t file_second(const std::filesystem::path& directory, double wall_time) {
  auto second = static_cast<std::uint64_t>(std::max(0.0, wall_time));
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    std::uint64_t other = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), other);
    second = std::max(second, other + 1);
  }
  return second;
}

File create_event_file(const std::filesystem::path& directory, double wall_time) {
  std::filesystem::create_directories(directory);
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return File::create(directory /
                      fmt::format("{}{:010}.{}.{}.0", kPrefix, file_second(directory, wall_time), host.data(), getpid()));
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (const char byte : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xffu];
  return ~crc;
}

std::string tensorboard_record(std::string_view event) {
  const std::string length = little_endian(static_cast<std::uint64_t>(event.size()));
  return length + little_endian(masked_crc32c(length)) + std::string(event) + little_endian(masked_crc32c(event));
}

std::string version_event(double wall_time) { return event_head(wall_time, 0) + field('\x1a', "brain.Event:2"); }

std::string session_start_event(double wall_time, std::int64_t step) {
  constexpr std::string_view kStatusStart("\x08\x01", 2);
  return event_head(wall_time, step) + field('\x3a', kStatusStart);
}

std::string scalars_event(double wall_time, std::int64_t step, std::span<const std::pair<std::string, float>> scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) summary += field('\x0a', field('\x0a', tag) + '\x15' + little_endian(value));
  return event_head(wall_time, step) + field('\x2a', summary);
}

std::string text_event(double wall_time, std::int64_t step, std::string_view tag, std::string_view text) {
  const std::string metadata = field('\x0a', field('\x0a', "text"));
  constexpr std::string_view kTypeAndShape("\x08\x07\x12\x04\x12\x02\x08\x01", 8);
  const std::string tensor = std::string(kTypeAndShape) + field('\x42', text);
  const std::string value = field('\x0a', tag) + field('\x4a', metadata) + field('\x42', tensor);
  return event_head(wall_time, step) + field('\x2a', field('\x0a', value));
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& directory, double wall_time,
                                     std::optional<std::int64_t> resumed_step)
    : file_(create_event_file(directory, wall_time)), last_flush_(wall_time) {
  pending_ = tensorboard_record(version_event(wall_time));
  if (resumed_step) pending_ += tensorboard_record(session_start_event(wall_time, *resumed_step));
  flush();
}

TensorboardWriter::~TensorboardWriter() {
  try {
    flush();
  } catch (const Error& error) {
    log_warning("{}", error.what());
  }
}

void TensorboardWriter::scalars(double wall_time, std::int64_t step, std::span<const std::pair<std::string, float>> values) {
  if (!values.empty()) add(wall_time, scalars_event(wall_time, step, values));
}

void TensorboardWriter::text(double wall_time, std::int64_t step, std::string_view tag, std::string_view text) {
  add(wall_time, text_event(wall_time, step, tag, text));
}

void TensorboardWriter::add(double wall_time, std::string_view event) {
  pending_ += tensorboard_record(event);
  if (wall_time - last_flush_ < kFlushSeconds) return;
  flush();
  last_flush_ = wall_time;
}

void TensorboardWriter::flush() {
  if (pending_.empty()) return;
  file_.append(std::as_bytes(std::span(pending_)));
  pending_.clear();
}

}  // namespace hadal::report
