#!/usr/bin/env python3
"""Speed of hadal's flash attention against PyTorch's scaled_dot_product_attention at the same sizes and threads, f32, causal:
milliseconds and ratios (above 1: hadal is faster).

usage: attention_bench.py [--bench PATH] [--threads N]

PyTorch's fused CPU kernel wants values as wide as queries; it is timed with the values as they are and padded to that width, and the
better of both counts. Its allocator keeps memory (page faults would be half of its time). Best of three rounds, the two sides in turn.
"""
import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# The sizes of attention_bench.cc: batch, tokens, query heads, key heads, query and key width, value width.
CASES = {"mla_8x512": (8, 512, 8, 8, 48, 32), "gqa_1x2048": (1, 2048, 8, 2, 64, 64)}

PEER = """
import sys, time, torch
import torch.nn.functional as F
batch, tokens, heads, key_heads, width, value, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)

def tensor(h, w):
    return torch.randn(batch, tokens, h, w).transpose(1, 2).detach().requires_grad_()

best = [1e9, 1e9]
for v_width in {value, width}:
    q, k, v = tensor(heads, width), tensor(key_heads, width), tensor(key_heads, v_width)
    d_o = torch.randn(batch, tokens, heads, v_width).transpose(1, 2)
    for _ in range(8):
        start = time.perf_counter()
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.14, enable_gqa=heads != key_heads)
        middle = time.perf_counter()
        torch.autograd.grad(o, (q, k, v), d_o)
        best = [min(best[0], middle - start), min(best[1], time.perf_counter() - middle)]
print(*best)
"""


def clean_environment():
    """OPENBLAS_* may force slow kernels; the thresholds keep freed memory in the process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment.update(MALLOC_TRIM_THRESHOLD_="1000000000000", MALLOC_MMAP_THRESHOLD_="1000000000000")
    return environment


def peer(sizes, threads):
    result = subprocess.run([sys.executable, "-c", PEER, *map(str, sizes), str(threads)], capture_output=True, text=True,
                            env=clean_environment(), check=False)
    if result.returncode != 0:
        sys.exit(f"PyTorch failed:\n{result.stderr}")
    return [float(x) for x in result.stdout.split()]


def ours(bench, name, sizes, threads):
    batch, tokens, heads, _, width, value = sizes
    pairs = batch * heads * tokens * (tokens + 1) / 2
    flops = [pairs * 2 * (width + value), pairs * 2 * (3 * width + 2 * value)]
    seconds = []
    for pass_name, work in zip(("forward", "backward"), flops):
        result = subprocess.run([bench, f"--threads={threads}", f"--benchmark_filter=flash_attention/f32/{name}/{pass_name}",
                                 "--benchmark_format=json"], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            sys.exit(f"{bench} failed:\n{result.stderr}")
        seconds.append(work / (json.loads(result.stdout)["benchmarks"][0]["GFLOP/s"] * 1e9))
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", default=os.path.join(ROOT, "build", "dev", "tests", "bench", "bench_ops"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for name, sizes in CASES.items():
        hadal, torch = [1e9, 1e9], [1e9, 1e9]
        for _ in range(3):
            torch = [min(a, b) for a, b in zip(torch, peer(sizes, options.threads))]
            hadal = [min(a, b) for a, b in zip(hadal, ours(options.bench, name, sizes, options.threads))]
        for pass_name, mine, other in zip(("forward", "backward"), hadal, torch):
            print(f"{name:12} {pass_name:9} {options.threads} threads: hadal {mine * 1e3:7.2f} ms, PyTorch {other * 1e3:7.2f} ms, "
                  f"ratio {other / mine:.2f}")


if __name__ == "__main__":
    main()
