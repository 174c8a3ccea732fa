#include "comm/handle.h"

#include <exception>
#include <utility>

namespace hadal::comm {

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    release();
    work_ = std::move(other.work_);
    call_ = std::move(other.call_);
  }
  return *this;
}

void Handle::wait() {
  if (!work_) return;
  const std::unique_ptr<Work> work = std::move(work_);
  call_.wait();
  work->wait();
  call_.end();
}

void Handle::release() noexcept {
  if (!work_) return;
  if (std::uncaught_exceptions() > 0) {
    work_->abandon();
  } else {
    try {
      call_.wait();
      work_->wait();
    } catch (const std::exception&) {
      // The group has failed; the owner's next call throws the same and says why.
      work_->abandon();
    }
  }
  work_.reset();
  call_.end();
}

}  // namespace hadal::comm
