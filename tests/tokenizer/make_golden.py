#!/usr/bin/env python3
"""Writes golden_data.h: merges and ids that HF tokenizers gives for a small text of our own. Needs the package tokenizers.

usage: make_golden.py > golden_data.h
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))
from tokenizer_parity import hf_train  # noqa: E402

TEXT = """The tide goes out, and the tide comes in; the sea keeps its own time and the sand keeps none.
We'll measure 12345 waves at 3.14159 metres, then 67890 more: don't ask why, it's what we've always done.
\tfor (int i = 0; i < count; ++i) {\r\n\t\ttotal += waves[i] * 0.5f;  // half of each\r\n\t}\r\n\r\n
Das Meer gehört niemandem, der Fluß gehört den Fischen. Où est la mer? Elle est là, près de l'été.
Море шумит, море молчит, а рыба плывёт. Η θάλασσα είναι βαθιά. 海は広いな大きいな、月がのぼるし日が沈む。
深海の魚は光を知らない。深海的鱼不知道光。바다는 깊고 바다는 푸르다. البحر عميق والبحر أزرق. समुद्र गहरा है।
Deep-sea deep-sea deep-sea!!! ... ((waves)) [waves] {waves} <waves> "waves" 'waves' #waves @waves $waves%
🌊🌊🌊 🐟 🐟🐟 cafe\u0301 nai\u0308ve \u00a0no-break\u00a0space\u3000wide\u2028line   three   spaces
"""
REPEATS = 3

STRINGS = [
    "", " ", "\n", "  \n\n  ", "\r\n\r\nThe tide", "the tide comes in", "The  sea   keeps", "aaaaa", "123456789", "3.14159 metres",
    "don't we've we'll IT'S", "海は広い", "深海的鱼", "море молчит", "🌊🐟🌊", "cafe\u0301", "\u180e\u0085\u00a0\u3000x",
    "<|bos|>The tide<|eos|>", "<|bos", "for (int i = 0;\r\n\t\t++i)", "é\u0301\u200d👩\u200d👧", "\x00\x01\x7f", "x" * 200,
    " ... !!! ", "a\tb\t\tc", "Ġthe", "Straße ÆØÅ ſ", "٣٤٥ ४५६ ⅷ ½",
]


def literal(text):
    """A C string literal of the UTF-8 bytes."""
    out = ""
    hexed = False
    for byte in text.encode("utf-8"):
        char = chr(byte)
        if char in "\"\\?":
            out, hexed = out + "\\" + char, False
        elif 0x20 <= byte < 0x7F and not (hexed and char in "0123456789abcdefABCDEF"):
            out, hexed = out + char, False
        else:
            out, hexed = out + f"\\{byte:03o}", False
    return f'"{out}"'


def parts(text):
    """The text in runs whose literals fit a line."""
    out = [""]
    for char in text:
        if out[-1].endswith("\n") or len(literal(out[-1] + char)) > 124:
            out.append("")
        out[-1] += char
    return out


def wrapped(items, indent):
    lines, line = [], indent
    for item in items:
        if len(line) + len(item) + 2 > 128:
            lines.append(line.rstrip())
            line = indent
        line += item + ", "
    return "\n".join(lines + [line.rstrip()])


def main():
    print("// Made by make_golden.py with HF tokenizers: do not edit.\n#pragma once\n\n#include <cstdint>\n#include <string_view>\n"
          "#include <utility>\n#include <vector>\n\nnamespace hadal::tokenizer::golden {\n")
    print("inline constexpr std::int64_t kVocabSize = 400;\n")
    print(f"// The text to train on is kText, {REPEATS} times.\ninline constexpr int kRepeats = {REPEATS};")
    print("inline constexpr std::string_view kText =")
    print("\n".join("    " + literal(part) for part in parts(TEXT)) + ";\n")
    # Lengths are explicit: one string holds a NUL.
    print("inline const std::vector<std::string_view> kStrings = {")
    print(wrapped([f"{{{literal(text)}, {len(text.encode())}}}" for text in STRINGS], "    ") + "\n};\n")
    for name, kind in (("DeepSeekV3", "deepseek-v3"), ("Gpt2", "gpt-2")):
        tokenizer = hf_train(kind, TEXT * REPEATS, 400)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        print(f"inline const std::vector<std::pair<std::string_view, std::string_view>> kMerges{name} = {{")
        print(wrapped([f"{{{literal(left)}, {literal(right)}}}" for left, right in merges], "    ") + "\n};\n")
        print(f"inline const std::vector<std::vector<std::int32_t>> kIds{name} = {{")
        for text in STRINGS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            print(wrapped(["{" + ", ".join(map(str, ids[:1]))] + [str(i) for i in ids[1:]], "    ").rstrip(",") + "},")
        print("};\n")
    print("}  // namespace hadal::tokenizer::golden")


if __name__ == "__main__":
    main()
