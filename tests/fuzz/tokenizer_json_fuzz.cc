// libFuzzer target: any bytes as tokenizer.json. Either a refusal of the user's file, or a tokenizer that encodes and decodes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = hadal::tokenizer::Tokenizer::from_json(json, "", "fuzz");
    constexpr std::string_view kText = "The tide, 12345 waves\r\n <|bos|> \xE6\xB5\xB7\xE3\x81\xAF don't";
    if (tokenizer.decode(tokenizer.encode(kText)) != kText) std::abort();
  } catch (const hadal::Error& error) {
    if (error.code() != hadal::ExitCode::kBadInput) std::abort();
  }
  return 0;
}
