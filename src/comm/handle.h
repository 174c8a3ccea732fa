// A transfer or collective that was started and not yet waited for.
//
//   Handle gathered = tp.start_all_gather(mine, all);
//   ...                                        // work that needs neither buffer
//   gathered.wait();
#pragma once

#include <memory>
#include <utility>

#include "comm/ledger.h"

namespace hadal::comm {

/// What a transport has under way; lives in a Handle.
class Work {
 public:
  virtual ~Work() = default;
  /// Returns when the result is in place and the caller's buffers are free again.
  virtual void wait() = 0;
  /// The caller unwinds after an error and its buffers go away: no result is wanted, nobody is waited for.
  virtual void abandon() = 0;
};

/// Its buffers stay alive and untouched until wait() has returned. Movable. The destructor waits, unless an exception is
/// unwinding the stack (then the group is about to end: world.h, local_group.h).
class Handle {
 public:
  Handle() = default;
  Handle(std::unique_ptr<Work> work, LedgerCall call) : work_(std::move(work)), call_(std::move(call)) {}
  ~Handle() { release(); }
  Handle(Handle&&) noexcept = default;
  Handle& operator=(Handle&& other) noexcept;

  /// True from the start until wait().
  bool pending() const { return work_ != nullptr; }
  /// Once is enough; further calls return at once.
  void wait();

 private:
  void release() noexcept;

  std::unique_ptr<Work> work_;
  LedgerCall call_;
};

}  // namespace hadal::comm
