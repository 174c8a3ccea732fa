#include "data/document_spool.h"

#include "core/error.h"

namespace hadal::data {

DocumentSpool::DocumentSpool(const std::filesystem::path& path, WrittenSoFar kept)
    : file_(File::open_read_write(path)), count_(kept.documents) {
  if (file_.size() / 8 < kept.documents) {
    throw DamagedDataError("{}: {} bytes, but the journal says {} documents; remove the unfinished files to start anew",
                           path.string(), file_.size(), kept.documents);
  }
  file_.truncate(count_ * 8);
  if (count_ > 0) file_.read_at((count_ - 1) * 8, std::as_writable_bytes(std::span(&last_end_, 1)));
  if (last_end_ > kept.tokens)
    throw DamagedDataError("{}: does not belong to its journal; remove the unfinished files", path.string());
}

void DocumentSpool::add(std::uint64_t end) {
  HADAL_CHECK(end > last_end_, "document {} is empty", count_);
  last_end_ = end;
  ++count_;
  buffer_.push_back(end);
  if (buffer_.size() < kChunk) return;
  file_.append(std::as_bytes(std::span(buffer_)));
  buffer_.clear();
}

void DocumentSpool::sync() {
  file_.append(std::as_bytes(std::span(buffer_)));
  buffer_.clear();
  file_.sync();
}

}  // namespace hadal::data
