#include "data/open_source.h"

#include <memory>

#include "core/error.h"
#include "data/flat_tokens.h"
#include "data/megatron.h"
#include "data/token_file.h"

namespace hadal::data {

TokenSourcePtr open_token_source(const std::filesystem::path& path) {
  if (MegatronSource::exists(path)) return std::make_shared<MegatronSource>(path);
  if (!std::filesystem::exists(path)) {
    throw UserError("{}: no such token file, and no {}.idx with {}.bin either (write one with `hadal data build`)", path.string(),
                    path.string(), path.string());
  }
  if (path.extension() == ".ds") return FlatTokens::open_datatrove(path);
  if (FlatTokens::is_llmc(path)) return FlatTokens::open_llmc(path);
  return std::make_shared<TokenFile>(path);
}

}  // namespace hadal::data
