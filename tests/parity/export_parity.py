#!/usr/bin/env python3
"""Trains small models in Hadal, exports them, and loads them in Hugging Face transformers.

usage: export_parity.py [--hadal PATH] [--steps N]

For each: no missing weight, no unexpected one but MTP's (none with --no-mtp), same logits to 1e-4, same greedy continuation, same
ids from the exported tokenizer. Sparse models load with trust_remote_code. Exits 1 on any difference; prints SKIPPED and exits 0
when torch, transformers or safetensors are missing.
"""
import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
except ImportError as error:
    print(f"SKIPPED: export parity needs the Python packages torch, transformers and safetensors ({error})")
    sys.exit(0)

logging.set_verbosity_error()
logging.disable_progress_bar()
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLERANCE = 1e-4
VOCAB = 512
NEW_TOKENS = 24

CONFIG = """
model:
  vocab_size: {vocab}
  hidden_size: 64
  num_layers: 3
  intermediate_size: 96
  max_positions: 256
  init_std: 0.05
  attention: {{{attention}}}
  rope: {{{rope}}}
  moe: {{num_experts: 8, num_shared: 1, top_k: 2, intermediate_size: 32, first_dense_layers: 1, num_groups: 2, topk_groups: 1,
        routed_scaling: 1.5}}
  mtp: {{depth: {depth}}}
data: {{sources: [{{path: {tokens}}}], sequence_length: 64, tokenizer: {tokenizer}}}
run: {{dir: {run}}}
train: {{steps: {steps}, global_batch: 8, micro_batch: 4}}
optim: {{lr: 3e-3, schedule: {{kind: constant}}}}
"""
MLA = "kind: mla, num_heads: 4, q_lora_rank: 24, kv_lora_rank: 16, qk_nope_head_dim: 12, qk_rope_head_dim: 8, v_head_dim: 14"
GQA = "kind: gqa, num_heads: 4, num_kv_heads: 2, head_dim: 16, v_head_dim: 12"
NSA = "sparse: nsa, nsa: {block_length: 8, block_stride: 4, select_block: 8, num_selected: 4, window: 16}"
MODELS = {
    "mla": dict(attention=MLA, rope="theta: 10000", depth=1),
    "mla_yarn": dict(attention=MLA, rope="yarn: {factor: 4, original_length: 32}", depth=0),
    "nsa_mla": dict(attention=f"{MLA}, {NSA}, dense_layers: [1]", rope="theta: 10000", depth=1),
    "nsa_gqa": dict(attention=f"{GQA}, {NSA}", rope="theta: 10000", depth=0),
}


def run(hadal, *arguments):
    result = subprocess.run([hadal, *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"hadal {' '.join(arguments)} returned {result.returncode}:\n{result.stderr}")
    return result.stdout


def write_text(path):
    """Made-up sentences over a few hundred words: something to learn, nothing to download."""
    source = random.Random(1)
    words = ["".join(source.choice("abcdefghijklmnoprstuvw") for _ in range(source.randint(2, 8))) for _ in range(300)]
    with open(path, "w") as file:
        for _ in range(4000):
            file.write(" ".join(source.choice(words[: source.randint(5, 300)]) for _ in range(source.randint(4, 14))) + ".\n")
    return " ".join(words[:12])


def load(path):
    model, report = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True, output_loading_info=True, dtype=torch.float32,
                                                         attn_implementation="eager")
    return model.eval(), report


def check_weights(report, layers, mtp):
    """Findings about missing and unexpected weights."""
    layer = re.compile(r"model\.layers\.(\d+)\.")
    odd = [key for key in report["unexpected_keys"] if not mtp or not layer.match(key) or int(layer.match(key)[1]) < layers]
    return [f"missing {sorted(report['missing_keys'])}"] * bool(report["missing_keys"]) + [f"unexpected {sorted(odd)}"] * bool(odd)


def compare(hadal, name, options, at, prompt, steps):
    here = lambda file: at(f"{name}.{file}")
    with open(here("yaml"), "w") as file:
        file.write(CONFIG.format(vocab=VOCAB, tokens=at("tokens.h5"), tokenizer=at("tokenizer"), run=here("run"), steps=steps, **options))
    run(hadal, "train", here("yaml"))
    run(hadal, "export", here("run"), "--dtype", "f32", "--out", here("hf"))
    run(hadal, "export", here("run"), "--dtype", "f32", "--no-mtp", "--out", here("hf_plain"))
    torch.manual_seed(0)
    tokens = torch.randint(0, VOCAB, (2, 100))
    save_file({"tokens": tokens}, here("tokens"))
    run(hadal, "logits", here("run"), "--tokens", here("tokens"), "--out", here("logits"), "--dtype", "f32")
    ours = load_file(here("logits"))["logits"]
    findings = []
    for folder, mtp in (("hf", options["depth"] > 0), ("hf_plain", False)):
        model, report = load(here(folder))
        findings += check_weights(report, 3, mtp)
        with torch.no_grad():
            difference = (model(tokens).logits - ours).abs().max().item()
        if not difference <= TOLERANCE:
            findings.append(f"logits of {folder} differ by {difference:.2e}")
    ids = AutoTokenizer.from_pretrained(here("hf"), trust_remote_code=True)(prompt, add_special_tokens=False)["input_ids"]
    encoded = subprocess.run([hadal, "tokenizer", "encode", "--tokenizer", at("tokenizer"), "--whole"], input=prompt, capture_output=True, text=True)
    if [int(word) for word in encoded.stdout.split()] != ids:
        findings.append("the exported tokenizer gives other ids")
    said = run(hadal, "generate", here("run"), "--prompt", prompt, "--max-tokens", str(NEW_TOKENS), "--temperature", "0", "--ids", "--dtype", "f32")
    said = [int(word) for word in re.findall(r"\d+", said)][-NEW_TOKENS:]
    with torch.no_grad():
        answer = model.generate(torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    if said != answer[0, len(ids):].tolist():
        findings.append(f"greedy continuations differ: {said} against {answer[0, len(ids):].tolist()}")
    print(f"{name}: logits differ by {difference:.1e}; " + ("; ".join(findings) or "same weights, ids and continuation"))
    return bool(findings)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hadal", default=os.path.join(ROOT, "build", "release", "hadal"))
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="hadal-parity-")
    try:
        at = lambda name: os.path.join(folder, name)
        prompt = write_text(at("text.txt"))
        run(arguments.hadal, "tokenizer", "train", "--input", at("text.txt"), "--vocab-size", str(VOCAB), "--out", at("tokenizer"))
        run(arguments.hadal, "data", "build", "--input", at("text.txt"), "--documents", "2KiB", "--tokenizer", at("tokenizer"), "--out", at("tokens.h5"))
        failed = [name for name, options in MODELS.items() if compare(arguments.hadal, name, options, at, prompt, arguments.steps)]
    finally:
        shutil.rmtree(folder)
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


if __name__ == "__main__":
    main()
