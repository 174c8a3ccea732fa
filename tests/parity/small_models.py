"""What the parity scripts share: small models as Hadal configs, a made-up text, and running `hadal`."""
import os
import random
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VOCAB = 512
MODEL = """
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


def model_yaml(name, **changes):
    return MODEL.format(vocab=VOCAB, **{**MODELS[name], **changes})


def run(hadal, *arguments):
    result = subprocess.run([hadal, *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"hadal {' '.join(arguments)} returned {result.returncode}:\n{result.stderr}")
    return result.stdout


def write_text(path):
    """Made-up sentences over a few hundred words: something to learn, nothing to download. Returns a prompt."""
    source = random.Random(1)
    words = ["".join(source.choice("abcdefghijklmnoprstuvw") for _ in range(source.randint(2, 8))) for _ in range(300)]
    with open(path, "w") as file:
        for _ in range(4000):
            file.write(" ".join(source.choice(words[: source.randint(5, 300)]) for _ in range(source.randint(4, 14))) + ".\n")
    return " ".join(words[:12])


def make_corpus(hadal, at):
    """text.txt, tokenizer/ and tokens.h5 in the folder of `at`; returns a prompt."""
    prompt = write_text(at("text.txt"))
    run(hadal, "tokenizer", "train", "--input", at("text.txt"), "--vocab-size", str(VOCAB), "--out", at("tokenizer"))
    run(hadal, "data", "build", "--input", at("text.txt"), "--documents", "2KiB", "--tokenizer", at("tokenizer"), "--out", at("tokens.h5"))
    return prompt
