#!/usr/bin/env python3
"""Trains small models in Hadal, exports them, and loads them in Hugging Face transformers.

usage: export_parity.py [--hadal PATH] [--steps N]

For each: no missing weight, no unexpected one but MTP's (none with --no-mtp), same logits to 1e-4, same greedy continuation, same
ids from the exported tokenizer. Sparse models load with trust_remote_code. Exits 1 on any difference; prints SKIPPED and exits 0
when torch, transformers or safetensors are missing.
"""
import argparse
import os
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

from small_models import MODELS, ROOT, VOCAB, make_corpus, model_yaml, run

logging.set_verbosity_error()
logging.disable_progress_bar()
TOLERANCE = 1e-4
NEW_TOKENS = 24

CONFIG = """
data: {{sources: [{{path: {tokens}}}], sequence_length: 64, tokenizer: {tokenizer}}}
run: {{dir: {run}}}
train: {{steps: {steps}, global_batch: 8, micro_batch: 4}}
optim: {{lr: 3e-3, schedule: {{kind: constant}}}}
"""


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
        file.write(model_yaml(name) + CONFIG.format(tokens=at("tokens.h5"), tokenizer=at("tokenizer"), run=here("run"), steps=steps))
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
    ids = AutoTokenizer.from_pretrained(here("hf"), trust_remote_code=True)(prompt)["input_ids"]
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
        prompt = make_corpus(arguments.hadal, at)
        failed = [name for name, options in MODELS.items() if compare(arguments.hadal, name, options, at, prompt, arguments.steps)]
    finally:
        shutil.rmtree(folder)
    if failed:
        sys.exit(f"FAILED: {', '.join(failed)}")


if __name__ == "__main__":
    main()
