#!/usr/bin/env python3
"""Speed of `hadal tokenizer` against HF tokenizers on the same text and threads: seconds and ratios (above 1: hadal is faster).

usage: tokenizer_bench.py [--hadal PATH] [--megabytes N] [--vocab-size N] [--text FILE]

HF gets the text as documents of about 64 KB, so that its threads have something to share. Each side runs in its own process and times
the work alone (HF: train_from_iterator, encode_batch; hadal: the seconds it reports). Best of three, the two sides in turn.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

PEER = """
import json, os, sys, time
sys.path.insert(0, os.path.join(sys.argv[1], "tests", "parity"))
from tokenizer_parity import SPECIAL, hf_pre_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
action, kind, path, vocab_size, directory = sys.argv[2:]
with open(path, encoding="utf-8", errors="replace", newline="") as file:
    lines = file.readlines()
documents, part, size = [], [], 0
for line in lines:
    part.append(line)
    size += len(line)
    if size >= 65536:
        documents.append("".join(part))
        part, size = [], 0
documents.append("".join(part))
if action == "train":
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = hf_pre_tokenizer(kind)
    trainer = trainers.BpeTrainer(vocab_size=int(vocab_size), special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    start = time.perf_counter()
    tokenizer.train_from_iterator(documents, trainer)
    print(time.perf_counter() - start)
else:
    tokenizer = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
    start = time.perf_counter()
    encode(documents, add_special_tokens=False)
    print(time.perf_counter() - start)
"""


def peer(action, kind, text, vocab_size, directory, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true" if threads > 1 else "false")
    result = subprocess.run([sys.executable, "-c", PEER, ROOT, action, kind, text, str(vocab_size), directory],
                            capture_output=True, text=True, env=environment, check=False)
    if result.returncode != 0:
        sys.exit(f"tokenizers failed:\n{result.stderr}")
    return float(result.stdout.split()[-1])


def ours(hadal, action, kind, text, vocab_size, directory, threads):
    words = [hadal, "tokenizer", "--threads", str(threads), "--quiet", "--json", "-"]
    if action == "train":
        words += ["train", "--input", text, "--vocab-size", str(vocab_size), "--pre", kind, "--out", directory]
    else:
        words += ["inspect", directory, "--input", text]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"hadal failed:\n{result.stderr}")
    return json.loads(result.stdout)["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hadal", default=os.environ.get("HADAL", os.path.join(ROOT, "build", "release", "hadal")))
    parser.add_argument("--megabytes", type=float, default=16)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--text", help="the text to use instead of what the parity test finds")
    arguments = parser.parse_args()
    try:
        import tokenizers
    except ImportError as error:
        print(f"SKIPPED: the tokenizer bench needs the Python package tokenizers ({error})")
        return 0
    sys.path.insert(0, os.path.join(ROOT, "tests", "parity"))
    import random
    from tokenizer_parity import documentation, mixed_scripts, real_text
    rng = random.Random(20)
    if arguments.text:
        with open(arguments.text, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read()
    else:
        text = "".join(source(rng)[1] for source in (real_text, documentation, mixed_scripts))
    encoded = text.encode("utf-8")
    limit = int(arguments.megabytes * 1e6)
    encoded = (encoded * (limit // len(encoded) + 1))[:limit].decode("utf-8", "ignore").encode("utf-8")
    print(f"tokenizers {tokenizers.__version__}; {len(encoded) / 1e6:.1f} MB of text, vocabulary {arguments.vocab_size}")
    print(f"{'':<22}{'threads':>8}{'tokenizers':>14}{'hadal':>14}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text.txt")
        with open(path, "wb") as file:
            file.write(encoded)
        for kind in ("deepseek-v3", "gpt-2"):
            directory = os.path.join(folder, kind)
            for action in ("train", "encode"):
                for threads in (1, 2):
                    best = [1e9, 1e9]
                    for _ in range(3):
                        best[1] = min(best[1], ours(arguments.hadal, action, kind, path, arguments.vocab_size, directory, threads))
                        best[0] = min(best[0], peer(action, kind, path, arguments.vocab_size, directory, threads))
                    rates = [len(encoded) / 1e6 / seconds for seconds in best]
                    print(f"{action + ' ' + kind:<22}{threads:>8}{rates[0]:>9.1f} MB/s{rates[1]:>9.1f} MB/s{best[0] / best[1]:>8.1f}",
                          flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
