#!/usr/bin/env python3
"""Trains one small DeepseekV3ForCausalLM for 100 AdamW steps in Hadal and in PyTorch, from the same weights on the same batches.

usage: train_parity.py [--hadal PATH] [--steps N]

Prints the largest difference of the losses; exits 1 when one step differs by more than 1e-4. Prints SKIPPED and exits 0 when
torch, transformers or safetensors are missing. Selection is frozen on both sides: no bias update, no balance loss, no MTP.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
except ImportError as error:
    print(f"SKIPPED: training parity needs the Python packages torch, transformers and safetensors ({error})")
    sys.exit(0)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOLERANCE = 1e-4
LR = 3e-4
VOCAB = 512

CONFIG = """
model:
  vocab_size: {vocab}
  hidden_size: 64
  num_layers: 3
  intermediate_size: 96
  max_positions: 256
  attention: {{kind: mla, num_heads: 4, q_lora_rank: 24, kv_lora_rank: 16, qk_nope_head_dim: 12, qk_rope_head_dim: 8, v_head_dim: 14}}
  moe: {{num_experts: 8, num_shared: 1, top_k: 2, intermediate_size: 32, first_dense_layers: 1, num_groups: 2, topk_groups: 1,
        routed_scaling: 1.5}}
data: {{sources: [{{path: {tokens}}}], sequence_length: 64, tokenizer: {tokenizer}}}
run: {{dir: {run}, init_from: {start}}}
train: {{steps: {steps}, global_batch: 8, micro_batch: 4}}
optim: {{lr: {lr}, schedule: {{kind: constant}}, weight_decay: 0.1, clip_norm: 1.0, beta1: 0.9, beta2: 0.95, eps: 1e-8}}
balance: {{bias_update_speed: 0, sequence_alpha: 0}}
"""


def run(hadal, *arguments):
    result = subprocess.run([hadal, *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"hadal {' '.join(arguments)} returned {result.returncode}:\n{result.stderr}")


def write_text(path):
    """Made-up sentences over a few hundred words: something to learn, nothing to download."""
    source = random.Random(1)
    words = ["".join(source.choice("abcdefghijklmnoprstuvw") for _ in range(source.randint(2, 8))) for _ in range(300)]
    with open(path, "w") as file:
        for _ in range(4000):
            file.write(" ".join(source.choice(words[: source.randint(5, 300)]) for _ in range(source.randint(4, 14))) + ".\n")


def start_model():
    torch.manual_seed(3)
    config = DeepseekV3Config(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=3, intermediate_size=96, moe_intermediate_size=32, num_attention_heads=4,
        num_key_value_heads=4, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, n_group=2, topk_group=1,
        first_k_dense_replace=1, norm_topk_prob=True, routed_scaling_factor=1.5, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=12,
        qk_rope_head_dim=8, v_head_dim=14, max_position_embeddings=256, initializer_range=0.05, tie_word_embeddings=False,
        num_nextn_predict_layers=0)
    config._attn_implementation = "eager"
    return DeepseekV3ForCausalLM(config).float()


def train_torch(model, batches, steps):
    decays = [p for p in model.parameters() if p.dim() > 1]
    exempt = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": 0.1}, {"params": exempt, "weight_decay": 0.0}], lr=LR, betas=(0.9, 0.95), eps=1e-8)
    model.train()
    losses = []
    for step in range(steps):
        logits = model(batches["tokens"][step].long()).logits
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batches["targets"][step].long().flatten(), reduction="none")
        mask = batches["loss_mask"][step].flatten().float()
        loss = (nll * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hadal", default=os.path.join(ROOT, "build", "release", "hadal"))
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="hadal-parity-")
    try:
        at = lambda name: os.path.join(folder, name)
        write_text(at("text.txt"))
        run(arguments.hadal, "tokenizer", "train", "--input", at("text.txt"), "--vocab-size", str(VOCAB), "--out", at("tokenizer"))
        run(arguments.hadal, "data", "build", "--input", at("text.txt"), "--documents", "2KiB", "--tokenizer", at("tokenizer"), "--out", at("tokens.h5"))
        model = start_model()
        model.save_pretrained(at("hf"))
        run(arguments.hadal, "import", at("hf"), "--out", at("start"))
        with open(at("config.yaml"), "w") as file:
            file.write(CONFIG.format(vocab=VOCAB, tokens=at("tokens.h5"), tokenizer=at("tokenizer"), run=at("run"), start=at("start"),
                                     steps=arguments.steps, lr=LR))
        run(arguments.hadal, "data", "batches", at("config.yaml"), "--steps", str(arguments.steps), "--out", at("batches.safetensors"))
        run(arguments.hadal, "train", at("config.yaml"))
        with open(at("run/metrics.jsonl")) as file:
            rows = [json.loads(line) for line in file]
        ours = [row["loss"] for row in rows if "loss" in row]
        theirs = train_torch(model, load_file(at("batches.safetensors")), arguments.steps)
    finally:
        shutil.rmtree(folder)
    differences = [abs(a - b) for a, b in zip(ours, theirs)]
    worst = max(range(len(differences)), key=differences.__getitem__)
    print(f"{len(ours)} steps: loss {theirs[0]:.4f} -> {theirs[-1]:.4f}; largest difference {differences[worst]:.2e} at step {worst + 1}")
    if len(ours) != arguments.steps or differences[worst] > TOLERANCE:
        sys.exit(f"FAILED: the losses differ by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
