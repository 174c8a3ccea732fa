#include "checkpoint/together.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

/// "CODE MESSAGE" of what `body` threw; empty when nothing.
std::string failure_of(const std::function<void()>& body) {
  const auto text = [](ExitCode code, const char* what) { return fmt::format("{} {}", static_cast<int>(code), what); };
  try {
    body();
  } catch (const Error& error) {
    if (error.code() == ExitCode::kBug) throw;
    return text(error.code(), error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    return text(ExitCode::kIo, error.what());
  } catch (const std::bad_alloc&) {
    return text(ExitCode::kIo, "out of memory");
  }
  return "";
}

[[noreturn]] void raise(const std::string& failure) {
  int code = 0;
  const char* end = std::from_chars(failure.data(), failure.data() + failure.size(), code).ptr;
  const std::string message(end + 1, failure.data() + failure.size());
  switch (static_cast<ExitCode>(code)) {
    case ExitCode::kBadInput:
      throw UserError("{}", message);
    case ExitCode::kDamagedData:
      throw DamagedDataError("{}", message);
    case ExitCode::kIo:
      throw IoError("{}", message);
    default:
      throw Error(static_cast<ExitCode>(code), message);
  }
}

}  // namespace

void together(comm::Communicator& world, const std::function<void()>& body) {
  const std::vector<std::string> failures = world.all_gather(failure_of(body));
  const auto first = std::ranges::find_if(failures, [](const std::string& failure) { return !failure.empty(); });
  if (first != failures.end()) raise(*first);
}

}  // namespace hadal::checkpoint
