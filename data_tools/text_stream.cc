#include "data_tools/text_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/file.h"

namespace hadal::data_tools {
namespace {

constexpr std::size_t kInputBytes = 1 << 18;
constexpr std::array<unsigned char, 2> kGzip{0x1f, 0x8b};
constexpr std::array<unsigned char, 4> kZstd{0x28, 0xb5, 0x2f, 0xfd};

/// The file's own bytes, in pieces.
class RawBytes {
 public:
  explicit RawBytes(File file) : file_(std::move(file)), size_(file_.size()) {}

  std::size_t read(std::span<char> out) {
    const std::size_t count = std::min<std::uint64_t>(out.size(), size_ - position_);
    file_.read_at(position_, std::as_writable_bytes(out.first(count)));
    position_ += count;
    return count;
  }
  std::uint64_t position() const { return position_; }
  [[noreturn]] void damaged(std::string_view reason) const {
    throw DamagedDataError("{}: {} near byte {} of {}", file_.path().string(), reason, position_, size_);
  }

 private:
  File file_;
  std::uint64_t size_;
  std::uint64_t position_ = 0;
};

class PlainStream : public TextStream {
 public:
  explicit PlainStream(RawBytes raw) : raw_(std::move(raw)) {}
  std::size_t read(std::span<char> out) override { return raw_.read(out); }
  std::uint64_t file_position() const override { return raw_.position(); }

 private:
  RawBytes raw_;
};

class GzipStream : public TextStream {
 public:
  explicit GzipStream(RawBytes raw) : raw_(std::move(raw)), input_(kInputBytes) {
    HADAL_CHECK(inflateInit2(&state_, 15 + 16) == Z_OK, "inflateInit2");
  }
  ~GzipStream() override { inflateEnd(&state_); }

  std::size_t read(std::span<char> out) override {
    state_.next_out = reinterpret_cast<Bytef*>(out.data());
    state_.avail_out = static_cast<uInt>(out.size());
    while (state_.avail_out > 0) {
      if (state_.avail_in == 0) {
        state_.avail_in = static_cast<uInt>(raw_.read(input_));
        state_.next_in = reinterpret_cast<Bytef*>(input_.data());
        if (state_.avail_in == 0) {
          if (!between_members_) raw_.damaged("the gzip stream is cut off");
          break;
        }
      }
      if (between_members_) {
        // Another member, or the zeros that some archivers pad with.
        if (*state_.next_in == 0) {
          ++state_.next_in;
          --state_.avail_in;
          continue;
        }
        inflateReset(&state_);
        between_members_ = false;
      }
      const int status = inflate(&state_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        between_members_ = true;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        raw_.damaged("the gzip stream is damaged");
      }
    }
    return out.size() - state_.avail_out;
  }
  std::uint64_t file_position() const override { return raw_.position() - state_.avail_in; }

 private:
  RawBytes raw_;
  std::vector<char> input_;
  z_stream state_{};
  bool between_members_ = false;
};

class ZstdStream : public TextStream {
 public:
  explicit ZstdStream(RawBytes raw) : raw_(std::move(raw)), input_(kInputBytes), context_(ZSTD_createDCtx(), ZSTD_freeDCtx) {
    HADAL_CHECK(context_ != nullptr, "ZSTD_createDCtx");
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, sizeof(void*) == 8 ? 31 : 30);
  }

  std::size_t read(std::span<char> out) override {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos < output.size) {
      if (pending_.pos == pending_.size) {
        pending_ = {input_.data(), raw_.read(input_), 0};
        if (pending_.size == 0 && !flush_) {
          if (inside_frame_) raw_.damaged("the zstd stream is cut off");
          break;
        }
      }
      const std::size_t before = output.pos;
      const std::size_t status = ZSTD_decompressStream(context_.get(), &output, &pending_);
      if (ZSTD_isError(status)) raw_.damaged(std::string("the zstd stream is damaged: ") + ZSTD_getErrorName(status));
      inside_frame_ = status != 0;
      // A full output may hide bytes that the decoder still holds.
      flush_ = inside_frame_ && output.pos == output.size && output.pos > before;
    }
    return output.pos;
  }
  std::uint64_t file_position() const override { return raw_.position() - (pending_.size - pending_.pos); }

 private:
  RawBytes raw_;
  std::vector<char> input_;
  std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context_;
  ZSTD_inBuffer pending_{};
  bool inside_frame_ = false;
  bool flush_ = false;
};

}  // namespace

std::unique_ptr<TextStream> open_text(const std::filesystem::path& path) {
  File file = File::open_read(path);
  std::array<unsigned char, 4> magic{};
  const std::size_t count = std::min<std::uint64_t>(magic.size(), file.size());
  file.read_at(0, std::as_writable_bytes(std::span(magic).first(count)));
  RawBytes raw(std::move(file));
  if (std::equal(kGzip.begin(), kGzip.end(), magic.begin())) return std::make_unique<GzipStream>(std::move(raw));
  if (magic == kZstd) return std::make_unique<ZstdStream>(std::move(raw));
  return std::make_unique<PlainStream>(std::move(raw));
}

}  // namespace hadal::data_tools
