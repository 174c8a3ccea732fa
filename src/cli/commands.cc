#include "cli/commands.h"

namespace hadal::cli {
namespace {

constexpr Command kCommands[] = {
    {"doctor", "what this machine offers, and the fix for what is missing",
     "  hadal doctor\n"
     "  hadal doctor --json -\n"
     "  mpirun -n 2 hadal doctor",
     doctor_command},
    {"config", "shows a resolved configuration, explains keys, prints their schema",
     "  hadal config show configs/run/quickstart.yaml train.steps=500\n"
     "  hadal config show configs/run/quickstart.yaml --provenance\n"
     "  hadal config explain model.attention.kv_lora_rank\n"
     "  hadal config schema > hadal.schema.json\n"
     "  hadal config schema --markdown",
     config_command},
    {"tokenizer", "learn a byte-level BPE vocabulary; text to ids and back",
     "  hadal tokenizer train --input corpus.txt --vocab-size 2048 --out tokenizer\n"
     "  hadal tokenizer inspect tokenizer --input corpus.txt\n"
     "  echo 'In the beginning' | hadal tokenizer encode --tokenizer tokenizer\n"
     "  hadal tokenizer encode --tokenizer tokenizer --input a.txt | hadal tokenizer decode --tokenizer tokenizer",
     tokenizer_command},
};

}  // namespace

std::span<const Command> commands() { return kCommands; }

const Command* find_command(std::string_view verb) {
  for (const Command& command : kCommands) {
    if (command.verb == verb) return &command;
  }
  return nullptr;
}

std::string version_text() { return "hadal " HADAL_VERSION; }

}  // namespace hadal::cli
