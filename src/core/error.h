// Errors: one exception base, a kind that fixes the exit code (spec/cli.md), and the contract check used everywhere.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace hadal {

/// Process exit codes: the promise to scripts.
enum class ExitCode : int {
  kDone = 0,
  kSignalled = 1,
  kBadInput = 2,
  kAnswerIsNo = 3,
  kDamagedData = 65,
  kNoCheckpoint = 66,
  kBug = 70,
  kIo = 74,
  kStoppedEarly = 75,
  kLocked = 77,
  kHang = 86,
  kNumerics = 87,
  kCorruption = 88,
};

/// Base of every exception that Hadal throws on purpose. `what()` is complete: what, where, and the fix.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// The user's input is wrong (config, flag, a file of the wrong kind): file, place, reason, fix. No stack.
class UserError : public Error {
 public:
  template <class... Args>
  explicit UserError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kBadInput, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// Bytes that were once good and are not any more (a torn checkpoint, a flipped bit in a token file): file and block.
class DamagedDataError : public Error {
 public:
  template <class... Args>
  explicit DamagedDataError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kDamagedData, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// The operating system refused: call, file, errno text.
class IoError : public Error {
 public:
  template <class... Args>
  explicit IoError(fmt::format_string<Args...> format, Args&&... args)
      : Error(ExitCode::kIo, fmt::format(format, std::forward<Args>(args)...)) {}
};

/// A broken promise between two parts of Hadal: our bug.
class ContractError : public Error {
 public:
  explicit ContractError(const std::string& message) : Error(ExitCode::kBug, message) {}
};

namespace detail {
[[noreturn]] void contract_failed(const char* file, int line, const char* expression, const std::string& message);
}  // namespace detail

}  // namespace hadal

/// Contract check, on in release: expression and a formatted message that holds the values.
#define HADAL_CHECK(condition, ...)                                                                     \
  do {                                                                                                  \
    if (!(condition)) [[unlikely]] {                                                                    \
      ::hadal::detail::contract_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__));  \
    }                                                                                                   \
  } while (false)

/// Contract check of an equality; prints both values.
#define HADAL_CHECK_EQ(a, b) HADAL_CHECK((a) == (b), "{} against {}", (a), (b))
