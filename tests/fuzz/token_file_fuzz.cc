// libFuzzer target: any bytes as a token file. Each input is opened as it is, then once more under a user block that vouches for
// its metadata, so that the structure parser and the checks behind the hash are reached. Only hadal::Error may come out.
//
//   fuzz_token_file -max_len=70000 CORPUS      (a good first entry: a file of `hadal data build` on a few lines of text)
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "data/token_file.h"

namespace {

using namespace hadal;

void open_and_read(const std::string& path) {
  try {
    const data::TokenFile file(path);
    std::vector<std::int32_t> tokens(std::min<std::uint64_t>(file.num_tokens(), 1 << 16));
    file.read(0, tokens);
    file.verify_all();
  } catch (const Error&) {
  }
}

void sign_and_read(const std::string& path) {
  try {
    File file = File::open_read_write(path);
    const data::Hdf5Structure structure = data::read_hdf5_structure(file, data::kUserBlockBytes);
    const auto tokens = structure.datasets.find("tokens");
    if (tokens == structure.datasets.end() || tokens->second.offset < data::kUserBlockBytes) return;
    const std::uint64_t metadata_end = tokens->second.offset;
    std::vector<std::byte> metadata(metadata_end - data::kUserBlockBytes);
    file.read_at(data::kUserBlockBytes, metadata);
    file.write_at(0, data::make_user_block(metadata_end, file.size(), hash128(metadata)));
  } catch (const Error&) {
    return;
  }
  open_and_read(path);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const int descriptor = ::memfd_create("token_file", MFD_CLOEXEC);
  if (descriptor < 0) return 0;
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  if (::write(descriptor, bytes, size) == static_cast<ssize_t>(size)) {
    open_and_read(path);
    if (size > data::kUserBlockBytes) sign_and_read(path);
  }
  ::close(descriptor);
  return 0;
}
