#!/usr/bin/env python3
"""Compares `hadal tokenizer` with HF tokenizers: merges of three corpora and ids of fuzz strings, both pre-tokenizers.

usage: tokenizer_parity.py [--hadal PATH] [--strings N] [--vocab-size N]

Prints counts; exits 1 on any difference. Prints SKIPPED and exits 0 when the Python package `tokenizers` is missing.
Fuzz strings hold only code points that Unicode 14 assigns, as PCRE2 10.42 knows no younger ones (spec/interop.md 4.4).
"""
import argparse
import glob
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unicodedata

try:
    import tokenizers
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError as error:
    print(f"SKIPPED: tokenizer parity needs the Python package tokenizers ({error})")
    sys.exit(0)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPECIAL = ["<|bos|>", "<|eos|>", "<|pad|>", "<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"]
DEEPSEEK_V3 = [
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]


def hf_pre_tokenizer(kind):
    if kind == "gpt-2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    stages = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in DEEPSEEK_V3]
    return pre_tokenizers.Sequence(stages + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def hf_train(kind, text, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = hf_pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def has_program(name):
    return shutil.which(name) is not None


def real_text(rng):
    """English prose: the Bible or Perl's documentation when installed, else invented words with a natural spread."""
    if has_program("bible"):
        text = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], capture_output=True, check=False).stdout
        if len(text) > 1_000_000:
            return "bible-kjv", text.decode("utf-8", "replace")
    words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randint(1, 9))) for _ in range(5000)]
    lines = [" ".join(words[min(4999, int(rng.paretovariate(0.6)))] for _ in range(rng.randint(4, 16))) for _ in range(40000)]
    return "invented prose", ".\n".join(lines)


def documentation(rng):
    """Technical text with code: Perl's documentation when installed, else this project's own sources."""
    paths = sorted(glob.glob("/usr/share/perl/*/pod/*.pod"))
    name = "perl-doc"
    if len(paths) < 50:
        name = "own sources"
        paths = sorted(glob.glob(os.path.join(ROOT, "**", "*.*"), recursive=True))
        paths = [path for path in paths if path.endswith((".h", ".cc", ".py", ".md", ".txt", ".yaml"))]
    parts = []
    for path in paths:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            parts.append(file.read())
    return name, "".join(parts)[:6_000_000]


SCRIPTS = [(0x20, 0x7E), (0x4E00, 0x9FA5), (0x3040, 0x30FF), (0x400, 0x4FF), (0x600, 0x6FF), (0x900, 0x97F), (0xAC00, 0xD7A3),
           (0x370, 0x3FF), (0x1F600, 0x1F64F), (0xE01, 0xE5B), (0xC0, 0x24F), (0x300, 0x36F)]


def mixed_scripts(rng):
    """Words of many scripts, numbers, code, and every kind of white space and line end."""
    with open(os.path.join(ROOT, "src", "tokenizer", "merge_learner.cc"), encoding="utf-8") as file:
        source = file.read()
    out = []
    for index in range(8000):
        low, high = rng.choice(SCRIPTS)
        words = []
        for _ in range(rng.randint(3, 20)):
            base = int(rng.paretovariate(0.7)) % (high - low + 1)
            words.append("".join(chr(low + (base + k * 7) % (high - low + 1)) for k in range(rng.randint(1, 5))))
        out.append(rng.choice([" ", "", ", ", " 12", "\t", "\u3000", "。", "  ", "\u00a0", "\u180e"]).join(words))
        out.append(rng.choice(["\n", "\r\n", "\n\n", "!\n", " \n \n", "  "]))
        if index % 10 == 0:
            at = rng.randint(0, len(source) - 400)
            out.append(source[at:at + 300] + "\n")
            out.append(f"x{rng.randint(0, 9999)} = {rng.random()};  // don't we'll I'm you've\n\treturn foo_bar(baz[{index}]);\n")
    return "mixed scripts and code", "".join(out)


def assigned_code_points():
    """Code points that Unicode 14 assigns. A younger Python knows more: then those of Unicode 3.2, which it knows by name."""
    known = unicodedata
    if int(unicodedata.unidata_version.split(".")[0]) > 14:
        known = unicodedata.ucd_3_2_0
        print(f"note: Python knows Unicode {unicodedata.unidata_version}; fuzz strings draw on Unicode 3.2 and the scripts listed here")
    return [point for point in range(0x110000) if known.category(chr(point)) not in ("Cs", "Cn")]


def fuzz_string(rng, points, corpus):
    kind = rng.random()
    if kind < 0.25:
        at = rng.randint(0, len(corpus) - 100)
        return corpus[at:at + rng.randint(1, 90)]
    spaces = "  \n\r\t\u00a0\u3000\u2028\u180e\u0085\u200b\ufeff"
    pieces = []
    for _ in range(rng.randint(1, 24)):
        choice = rng.random()
        if choice < 0.25:
            pieces.append(rng.choice(spaces) * rng.randint(1, 4))
        elif choice < 0.45:
            pieces.append("".join(chr(rng.randint(0x20, 0x7E)) for _ in range(rng.randint(1, 8))))
        elif choice < 0.60:
            low, high = rng.choice(SCRIPTS)
            pieces.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
        elif choice < 0.75:
            pieces.append("".join(chr(rng.choice(points)) for _ in range(rng.randint(1, 4))))
        elif choice < 0.85:
            pieces.append(str(rng.randint(0, 10 ** rng.randint(1, 9))))
        elif choice < 0.90:
            pieces.append(rng.choice(SPECIAL))
        elif choice < 0.95:
            pieces.append(rng.choice(["'s", "'LL", "n't", "'re", "'ve", "<|", "|>", "<|bos", "don't", "a" * rng.randint(1, 90)]))
        else:
            pieces.append(rng.choice("!?.,;:-_()[]{}\"'/\\@#$%^&*+=~`|<>") * rng.randint(1, 5))
    return "".join(pieces)


def difference(what, expected, found):
    for index, (one, other) in enumerate(zip(expected, found)):
        if one != other:
            print(f"  first difference in {what} at {index}: tokenizers {one!r}, hadal {other!r}")
            return
    print(f"  {what}: tokenizers has {len(expected)}, hadal {len(found)}")


def run(hadal, *words, stdin=None):
    result = subprocess.run([hadal, "tokenizer", *words], input=stdin, capture_output=True, check=False)
    if result.returncode != 0:
        sys.exit(f"hadal tokenizer {' '.join(words)} failed with {result.returncode}:\n{result.stderr.decode()}")
    return result.stdout


def compare_training(hadal, folder, kind, name, text, vocab_size):
    corpus = os.path.join(folder, "corpus.txt")
    with open(corpus, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    out = os.path.join(folder, "trained")
    run(hadal, "train", "--input", corpus, "--vocab-size", str(vocab_size), "--pre", kind, "--out", out, "--quiet")
    reference = hf_train(kind, text, vocab_size)
    expected = json.loads(reference.to_str())["model"]
    with open(os.path.join(out, "tokenizer.json"), encoding="utf-8") as file:
        found = json.load(file)["model"]
    same = expected["merges"] == found["merges"] and expected["vocab"] == found["vocab"]
    print(f"{'equal' if same else 'DIFFERENT'}: {kind:<12} {name:<24} {len(text):>9} characters, "
          f"{len(found['merges'])} merges, {len(found['vocab'])} tokens")
    if not same:
        difference("merges", expected["merges"], found["merges"])
    return same, reference, out


def compare_ids(hadal, folder, kind, directory, strings):
    """Ids of every string, HF loading the file that hadal wrote; then all ids decoded as one text."""
    reference = Tokenizer.from_file(os.path.join(directory, "tokenizer.json"))
    expected = [reference.encode(text, add_special_tokens=False).ids for text in strings]
    path = os.path.join(folder, "texts.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in strings)
    output = run(hadal, "encode", "--tokenizer", directory, "--input", path, "--json-lines").decode()
    found = [[int(word) for word in line.split()] for line in output.split("\n")[:len(strings)]]
    different = [index for index in range(len(strings)) if expected[index] != found[index]]
    round_trip = run(hadal, "decode", "--tokenizer", directory, "--whole", stdin=output.encode()) == "".join(strings).encode("utf-8")
    print(f"{'equal' if not different else 'DIFFERENT'}: {kind:<12} ids of {len(strings)} fuzz strings, "
          f"{len(different)} differ; decode {'exact' if round_trip else 'DIFFERS'}")
    for index in different[:5]:
        print(f"  {strings[index]!r}\n    tokenizers {expected[index]}\n    hadal      {found[index]}")
    return not different and round_trip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hadal", default=os.environ.get("HADAL", os.path.join(ROOT, "build", "release", "hadal")))
    parser.add_argument("--strings", type=int, default=60000)
    parser.add_argument("--vocab-size", type=int, default=4000)
    arguments = parser.parse_args()
    if not os.path.exists(arguments.hadal):
        sys.exit(f"{arguments.hadal}: not found; build first or give --hadal PATH")
    print(f"tokenizers {tokenizers.__version__}, Unicode {unicodedata.unidata_version} in Python")
    rng = random.Random(20)
    corpora = [real_text(rng), documentation(rng), mixed_scripts(rng)]
    points = assigned_code_points()
    good = True
    for kind in ("deepseek-v3", "gpt-2"):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in corpora:
                same, _, directory = compare_training(arguments.hadal, folder, kind, name, text, arguments.vocab_size)
                good = good and same
            corpus = "".join(text[:300000] for _, text in corpora)
            strings = [fuzz_string(rng, points, corpus) for _ in range(arguments.strings)]
            good = compare_ids(arguments.hadal, folder, kind, directory, strings) and good
    print("tokenizer parity: " + ("no differences" if good else "DIFFERENCES"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
