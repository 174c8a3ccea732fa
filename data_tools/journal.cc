#include "data_tools/journal.h"

#include <nlohmann/json.hpp>

#include "core/file.h"

namespace hadal::data_tools {

std::optional<Journal> Journal::load(const std::filesystem::path& path, const std::string& fingerprint) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const auto json = nlohmann::json::parse(read_file(path, 1 << 20), nullptr, false);
  Journal journal;
  try {
    if (json.at("fingerprint") != fingerprint) return std::nullopt;
    journal.fingerprint = fingerprint;
    journal.created_utc = json.at("created_utc");
    journal.file = json.at("file");
    journal.position = {json.at("offset"), json.at("line"), json.at("document_bytes")};
    journal.tokens = json.at("tokens");
    journal.documents = json.at("documents");
    journal.bytes = json.at("bytes");
    journal.replaced = json.at("replaced");
    journal.seconds = json.at("seconds");
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return journal;
}

void Journal::save(const std::filesystem::path& path) const {
  const nlohmann::ordered_json json = {
      {"fingerprint", fingerprint}, {"created_utc", created_utc}, {"file", file},
      {"offset", position.offset},  {"line", position.line},      {"document_bytes", position.document_bytes},
      {"tokens", tokens},           {"documents", documents},     {"bytes", bytes},
      {"replaced", replaced},       {"seconds", seconds}};
  write_file_atomically(path, json.dump(2) + "\n");
}

}  // namespace hadal::data_tools
