#include "cli/commands.h"

namespace hadal::cli {
namespace {

constexpr Command kCommands[] = {
    {"doctor", "what this machine offers, and the fix for what is missing",
     "  hadal doctor\n"
     "  hadal doctor --json -\n"
     "  mpirun -n 2 hadal doctor",
     doctor_command, true},
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
    {"data", "text to token files; what is in one; the batches of a run",
     "  hadal data build --input corpus.txt --documents 16KiB --tokenizer tokenizer --out corpus.h5\n"
     "  hadal data build --input web/*.jsonl.zst --text-key content --tokenizer tokenizer --out web.h5\n"
     "  hadal data build --input books --tokenizer tokenizer --megatron books_text_document\n"
     "  hadal data inspect corpus.h5 --show 2\n"
     "  hadal data batches configs/run/quickstart.yaml --steps 10 --out batches.safetensors",
     data_command},
    {"train", "trains a model, alone or on many ranks; resumes by itself",
     "  mpirun -n 2 hadal train configs/run/quickstart.yaml\n"
     "  hadal train configs/run/h100_small.yaml\n"
     "  hadal train configs/run/quickstart.yaml run.dir=runs/a train.steps=500 optim.lr=2e-3",
     train_command, true},
    {"verify", "proves that many ranks compute what one computes, on your model made small",
     "  hadal verify configs/run/quickstart.yaml --ranks 4\n"
     "  hadal verify configs/run/quickstart.yaml --ranks 8 --full parallel.tp=2 parallel.ep=4 --json verify.json",
     verify_command},
    {"report", "the curves of runs: one HTML page, a summary and a plot of the loss",
     "  hadal report runs/quickstart\n"
     "  hadal report runs/a runs/b runs/c --out compare.html",
     report_command},
    {"eval", "loss, perplexity, bits per byte and MTP acceptance of a model",
     "  hadal eval quickstart/run --data quickstart/tokens.h5 --held-out\n"
     "  hadal eval quickstart/run --data other.h5 --json eval.json",
     eval_command},
    {"generate", "continues a text with a trained model",
     "  hadal generate quickstart/run --prompt 'In the beginning' --max-tokens 100\n"
     "  hadal generate quickstart/run --prompt 'And' --temperature 0 --speculate",
     generate_command},
    {"export", "a checkpoint as a Hugging Face model directory",
     "  hadal export runs/a --out exported\n"
     "  hadal export runs/a --dtype f32 --no-mtp --out exported_f32\n"
     "  hadal export runs/sparse --drop-nsa --out dense",
     export_command},
    {"import", "a Hugging Face directory (DeepSeek V3 or V2, hadal_nsa) as a checkpoint",
     "  hadal import DeepSeek-V2-Lite --out imported\n"
     "  hadal train configs/run/quickstart.yaml run.init_from=imported",
     import_command},
    {"checkpoint", "what a checkpoint holds; is it intact; how do two differ; other shards",
     "  hadal checkpoint inspect runs/a\n"
     "  hadal checkpoint verify runs/a/checkpoints/step-100\n"
     "  hadal checkpoint diff runs/a runs/b --json -\n"
     "  hadal checkpoint reshard runs/a --shards 8 --out resharded",
     checkpoint_command},
    {"logits", "logits of given tokens, for parity checks",
     "  hadal logits quickstart/run --tokens tokens.safetensors --out logits.safetensors --dtype f64",
     logits_command},
    {"plan", "memory, time and bytes of a layout before anything is launched; the best layouts",
     "  hadal plan configs/run/deepseek_v3_2048.yaml --ranks 2048 --machine h800\n"
     "  hadal plan configs/run/quickstart.yaml parallel.pp=2 parallel.schedule=zb_h1\n"
     "  hadal plan configs/run/deepseek_v3_2048.yaml --search 2048 --machine h200 --json layouts.json",
     plan_command},
    {"bench", "tokens per second of whole training steps",
     "  hadal bench configs/bench/cpu_small.yaml --threads 1\n"
     "  hadal bench configs/bench/v2_lite_slice.yaml\n"
     "  mpirun -n 2 hadal bench configs/bench/cpu_small.yaml --json bench.json",
     bench_command, true},
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
