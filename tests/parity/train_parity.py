#!/usr/bin/env python3
"""Trains small models for 100 AdamW steps in Hadal and in PyTorch, from the same weights on the same batches: forward and gradients.

usage: train_parity.py [--hadal PATH] [--steps N]

The PyTorch side is what `hadal export` writes: DeepseekV3ForCausalLM of transformers for MLA, both sides in f32, and the exported reference
code for the sparse models (straightforward PyTorch of spec/model.md 8 and 9), both sides in f64: sparse models choose blocks, and where two are
nearly tied, roundings of f32 decide, after which two right runs differ. Each step's losses may differ by 1e-4 in f32, 1e-5 in f64. Exits 1 on
more; prints SKIPPED and exits 0 when torch, transformers or safetensors are missing. No bias update, no balance loss, no MTP: those are no
part of the exported forward pass.
"""
import argparse
import json
import os
import shutil
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging
except ImportError as error:
    print(f"SKIPPED: training parity needs the Python packages torch, transformers and safetensors ({error})")
    sys.exit(0)

from small_models import MODELS, ROOT, make_corpus, model_yaml, run

logging.set_verbosity_error()
logging.disable_progress_bar()
TOLERANCES = {"f32": 1e-4, "f64": 1e-5}
LR = 3e-4
CONFIG = """
data: {{sources: [{{path: {tokens}}}], sequence_length: 64, tokenizer: {tokenizer}}}
run: {{dir: {run}, seed: 5}}
train: {{steps: {steps}, global_batch: 8, micro_batch: 4}}
optim: {{lr: {lr}, schedule: {{kind: constant}}, weight_decay: 0.1, clip_norm: 1.0, beta1: 0.9, beta2: 0.95, eps: 1e-8}}
balance: {{bias_update_speed: 0, sequence_alpha: 0}}
"""


def decays(name, parameter):
    """Matrices decay; norm gains, biases and the positions of the block pooling do not."""
    return parameter.dim() > 1 and not name.endswith("position")


def train_torch(model, batches, steps):
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[decays(name, parameter)].append(parameter)
    optimizer = torch.optim.AdamW([{"params": groups[True], "weight_decay": 0.1}, {"params": groups[False], "weight_decay": 0.0}], lr=LR,
                                  betas=(0.9, 0.95), eps=1e-8)
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


def compare(hadal, name, at, steps):
    """Whether the losses of one model agree."""
    here = lambda file: at(f"{name}.{file}")

    def write_config(file, run_dir, num_steps, lr):
        with open(here(file), "w") as out:
            out.write(model_yaml(name, depth=0) + CONFIG.format(tokens=at("tokens.h5"), tokenizer=at("tokenizer"), run=here(run_dir), steps=num_steps, lr=lr))

    # One step of rate 0 is the way to a checkpoint of the initial weights.
    write_config("start.yaml", "start", 1, 0)
    run(hadal, "train", here("start.yaml"))
    run(hadal, "export", here("start"), "--dtype", "f32", "--out", here("hf"))
    precision = "f64" if name.startswith("nsa") else "f32"
    write_config("yaml", "run", steps, LR)
    run(hadal, "data", "batches", here("yaml"), "--steps", str(steps), "--out", here("batches"))
    run(hadal, "train", here("yaml"), f"run.init_from={here('start')}", f"precision.compute={precision}")
    with open(here("run/metrics.jsonl")) as file:
        ours = [row["loss"] for row in map(json.loads, file) if "loss" in row]
    model = AutoModelForCausalLM.from_pretrained(here("hf"), trust_remote_code=True, dtype=getattr(torch, precision.replace("f", "float")), attn_implementation="eager")
    theirs = train_torch(model, load_file(here("batches")), steps)
    differences = [abs(a - b) for a, b in zip(ours, theirs)]
    worst = max(range(len(differences)), key=differences.__getitem__)
    print(f"{name} in {precision}: {len(ours)} steps, loss {theirs[0]:.4f} -> {theirs[-1]:.4f}, largest difference {differences[worst]:.1e} at step {worst + 1}", flush=True)
    return len(ours) == steps and differences[worst] <= TOLERANCES[precision]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hadal", default=os.path.join(ROOT, "build", "release", "hadal"))
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="hadal-parity-")
    try:
        at = lambda name: os.path.join(folder, name)
        make_corpus(arguments.hadal, at)
        failed = [name for name in MODELS if not compare(arguments.hadal, name, at, arguments.steps)]
    finally:
        shutil.rmtree(folder)
    if failed:
        sys.exit(f"FAILED: the losses of {', '.join(failed)} differ by more than {TOLERANCES}")


if __name__ == "__main__":
    main()
