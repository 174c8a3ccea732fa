#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>

namespace hadal {
namespace {

std::atomic<int> g_rank{0};

spdlog::logger& logger() {
  static const std::shared_ptr<spdlog::logger> instance = [] {
    auto made = std::make_shared<spdlog::logger>("hadal", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%^%v%$");
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

int log_rank() { return g_rank.load(); }

void set_log_level(LogLevel level) { logger().set_level(spdlog_level(level)); }

void set_log_rank(int rank, int num_ranks) {
  g_rank = rank;
  if (num_ranks > 1) logger().set_pattern(fmt::format("%^[{}] %v%$", rank));
}

void log_message(LogLevel level, std::string_view message) {
  if (g_rank != 0 && level < LogLevel::kWarning) return;
  const char* prefix = level == LogLevel::kWarning ? "warning: " : level == LogLevel::kError ? "error: " : "";
  logger().log(spdlog_level(level), "{}{}", prefix, message);
}

}  // namespace hadal
