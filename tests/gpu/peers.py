#!/usr/bin/env python3
"""The peers of the op benches, in PyTorch and Triton on this machine's GPU: peers.py [--only NAME[,NAME...]] [--out FILE]

One JSON object a line: name and shape (those of the rows of bench_cuda, which compare.py joins them with), ms, tflops or gbs, peer.
Times are medians over at least 20 runs after warm-up, on random data, with the L2 cache swept before each run; the host runs ahead of
the device, so that no launch is part of a time. Bytes are those that one call must read and write, operations as in spec/gpu.md 0.
"""
import argparse
import json
import math
import statistics
import sys
import time

import torch
import torch._functorch.config
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

WARM_UP, LEAST_RUNS, MOST_RUNS, SECONDS = 3, 20, 100, 0.2
VERSION = "torch " + torch.__version__.split("+")[0]
BF16 = torch.bfloat16
benches, rows = {}, []


def bench(function):
    benches[function.__name__] = function
    return function


def random(*shape, dtype=BF16, std=1.0, grad=False):
    return (torch.randn(*shape, device="cuda", dtype=torch.float32) * std).to(dtype).requires_grad_(grad)


def time_ms(body):
    sweep = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    for _ in range(WARM_UP):
        body()
    torch.cuda.synchronize()
    start = time.perf_counter()
    body()
    torch.cuda.synchronize()
    runs = min(MOST_RUNS, max(LEAST_RUNS, int(SECONDS / (time.perf_counter() - start))))
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(runs)]
    for begin, end in events:
        sweep.zero_()
        torch.cuda._sleep(600_000)  # 0.3 ms in which the host gets ahead
        begin.record()
        body()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def add(name, shape, ms, peer, flops=0, moved=0, **more):
    rate = {"tflops": round(flops / ms / 1e9, 2)} if flops else {"gbs": round(moved / ms / 1e6, 1)} if moved else {}
    rows.append({"name": name, "shape": shape, "ms": round(ms, 5), **rate, "peer": f"{VERSION} {peer}", **more})
    print(json.dumps(rows[-1]), flush=True)


def add_backward(name, shape, out, inputs, peer, **cost):
    d_out = random(*out.shape)
    add(name, shape, time_ms(lambda: torch.autograd.grad(out, inputs, d_out, retain_graph=True)), peer, **cost)


@bench
def ceilings():
    a, b = random(8192, 8192), random(8192, 8192)
    gemm = time_ms(lambda: torch.mm(a, b.t()))
    add("gemm", "8192^3", gemm, "mm", flops=2 * 8192**3)
    source = torch.zeros(2 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = time_ms(lambda: target.copy_(source))
    add("copy", "2 GiB", copy, "copy_", moved=2 * source.numel())


def attention(name, shape, batch, heads, kv_heads, length, qk, v):
    q = random(batch, heads, length, qk, grad=True)
    k = random(batch, kv_heads, length, qk, grad=True)
    value = random(batch, kv_heads, length, v, grad=True)
    pairs = batch * heads * length * length  # of which a causal mask keeps half

    def forward():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q, k, value, is_causal=True, scale=1 / math.sqrt(qk), enable_gqa=k.shape[1] != heads)

    try:
        forward()
    except RuntimeError:  # a version whose cuDNN path takes no shared KV heads: as many KV heads as query heads, the same operations
        k, value = random(batch, heads, length, qk, grad=True), random(batch, heads, length, v, grad=True)

    add(f"{name}_forward", shape, time_ms(forward), "cuDNN SDPA", flops=pairs * (qk + v))
    add_backward(f"{name}_backward", shape, forward(), (q, k, value), "cuDNN SDPA, not deterministic", flops=pairs * (3 * qk + 2 * v))


@bench
def mla_attention():
    attention("mla_attention", "b1 h16 s4096 192/128", 1, 16, 16, 4096, 192, 128)
    attention("mla_attention", "b1 h128 s8192 192/128", 1, 128, 128, 8192, 192, 128)
    attention("mla_attention", "b1 h16 s32768 192/128", 1, 16, 16, 32768, 192, 128)


@bench
def gqa_attention():
    for length in (8192, 32768):
        attention("gqa_attention", f"b1 h64/4 s{length} d128", 1, 64, 4, length, 128, 128)


@bench
def sparse_attention():
    """XunhaoLai/native-sparse-attention-triton, where PYTHONPATH has its folder native_sparse_attention. It waits for the device in places."""
    try:
        from native_sparse_attention.ops import compressed_attention, topk_sparse_attention
    except ImportError as error:
        print(f"sparse_attention: skipped, {error}", file=sys.stderr)
        return
    heads, kv_heads, dim, kernel, stride, block, top = 64, 4, 128, 32, 16, 64, 16
    for length in (8192, 32768, 65536):
        shape, entries = f"b1 h{heads}/{kv_heads} s{length} d{dim}", (length - kernel) // stride + 1
        q = random(length, heads, dim, grad=True)
        pooled, keys = ([random(rows, kv_heads, dim, grad=True) for _ in "kv"] for rows in (entries, length))
        ends, pooled_ends = (torch.tensor([0, rows], device="cuda", dtype=torch.int32) for rows in (length, entries))

        def compressed_select():
            return compressed_attention(q, *pooled, kernel, stride, block, top, ends, pooled_ends, length, entries)

        out, chosen = compressed_select()
        add("nsa_compressed_select", shape, time_ms(compressed_select), "Triton NSA")
        add_backward("nsa_compressed_backward", shape, out, (q, *pooled), "Triton NSA")

        def selected():
            return topk_sparse_attention(q, *keys, chosen, block, ends)

        add("nsa_selected_forward", shape, time_ms(selected), "Triton NSA")
        add_backward("nsa_selected_backward", shape, selected(), (q, *keys), "Triton NSA")


def routed_ends(rows, experts, forced):
    """Where the experts' rows end, as in moe_bench.cc: equally many, or falling by exp(-2.8) in a scattered order and none for the last."""
    if forced:
        return [rows * (e + 1) // experts for e in range(experts)]
    shares = [math.exp(-2.8 * (e * 29 % experts) / experts) for e in range(experts - 1)] + [0.0]
    return [math.floor(sum(shares[: e + 1]) / sum(shares) * rows + 0.5) for e in range(experts)]


@bench
def moe_core():
    for experts, dim, width, top_k, tokens in ((64, 2048, 1408, 6, 16384), (128, 2048, 768, 8, 32768)):
        rows_in_all = tokens * top_k
        x = random(rows_in_all, dim, grad=True)
        gate_up = random(experts, dim, 2 * width, std=0.02, grad=True)
        down = random(experts, width, dim, std=0.02, grad=True)

        @torch.compile(dynamic=False)
        def core(x, gate_up, down, offsets):
            gate, up = torch._grouped_mm(x, gate_up, offs=offsets).chunk(2, -1)
            return torch._grouped_mm(F.silu(gate) * up, down, offs=offsets)

        for routing in ("forced", "natural"):
            offsets = torch.tensor(routed_ends(rows_in_all, experts, routing == "forced"), device="cuda", dtype=torch.int32)
            shape = f"e{experts} d{dim} w{width} k{top_k} t{tokens} {routing}"
            flops = 6 * rows_in_all * dim * width
            add("moe_core_forward", shape, time_ms(lambda: core(x, gate_up, down, offsets)), "_grouped_mm compiled", flops=flops)
            add_backward("moe_core_backward", shape, core(x, gate_up, down, offsets), (x, gate_up, down), "_grouped_mm compiled", flops=2 * flops)


@bench
def linear_cross_entropy():
    torch._functorch.config.donated_buffer = True  # the graph is not kept: logits may be overwritten
    for tokens, dim, vocab in ((4096, 2048, 102400), (4096, 7168, 129280)):
        x, weight = random(tokens, dim, grad=True), random(vocab, dim, std=0.02, grad=True)
        target = torch.randint(vocab, (tokens,), device="cuda")

        @torch.compile(dynamic=False)
        def loss_of(x, weight, target):
            return F.cross_entropy(F.linear(x, weight).float(), target)

        def step():
            return torch.autograd.grad(loss_of(x, weight, target), (x, weight))

        step()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        results = (x.numel() + weight.numel()) * 2
        extra = (torch.cuda.max_memory_allocated() - held - results) / 2**20
        add("linear_cross_entropy", f"{tokens}x{dim} v{vocab}", time_ms(step), "compiled", flops=6 * tokens * dim * vocab, extra_mib=round(extra))
    torch._functorch.config.donated_buffer = False


@bench
def rms_norm():
    x, gain = random(8192, 7168, grad=True), random(7168, dtype=torch.float32, grad=True)

    @torch.compile
    def norm(x, gain):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * gain).to(x.dtype)

    moved = 2 * x.numel()
    add("rms_norm_forward", "8192x7168", time_ms(lambda: norm(x, gain)), "compiled", moved=2 * moved)
    add_backward("rms_norm_backward", "8192x7168", norm(x, gain), (x, gain), "compiled", moved=3 * moved)


@bench
def swiglu():
    gate_up = random(16384, 2816, grad=True)

    @torch.compile
    def act(gate_up):
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate) * up

    add("swiglu", "16384x2816", time_ms(lambda: act(gate_up)), "compiled", moved=gate_up.numel() * 3)
    add_backward("swiglu_backward", "16384x2816", act(gate_up), (gate_up,), "compiled", moved=gate_up.numel() * 5)


@bench
def adamw():
    size = 1 << 28
    master = random(size, dtype=torch.float32, grad=True)
    master.grad = random(size, dtype=torch.float32, std=0.01)
    working = torch.empty(size, dtype=BF16, device="cuda")
    optimizer = torch.optim.AdamW([master], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    @torch.no_grad()
    def step():
        optimizer.step()
        working.copy_(master)

    # Master, gradient and two moments read, all but the gradient written, and the working weights.
    add("adamw", "256M", time_ms(step), "fused AdamW + cast", moved=size * 30)


@bench
def cast():
    wide = random(1 << 28, dtype=torch.float32)
    narrow = torch.empty_like(wide, dtype=BF16)
    add("cast", "f32->bf16 256M", time_ms(lambda: narrow.copy_(wide)), "copy_", moved=wide.numel() * 6)


@bench
def permute():
    tokens, dim, top_k, experts = 16384, 2048, 6, 64
    shape = f"{tokens}x{dim} k{top_k} e{experts}"
    chosen = torch.rand(tokens, experts, device="cuda").topk(top_k, -1).indices
    order = torch.argsort(chosen.flatten(), stable=True)
    source = order // top_k
    place = torch.argsort(order).view(tokens, top_k)
    x, weight = random(tokens, dim), torch.rand(tokens, top_k, device="cuda")
    routed = x[source]

    @torch.compile
    def gather(x, source):
        return x.index_select(0, source)

    @torch.compile
    def combine(routed, place, weight):
        return (routed[place].float() * weight.unsqueeze(-1)).sum(1).to(routed.dtype)

    moved = 2 * tokens * dim * (1 + top_k)
    add("permute", shape, time_ms(lambda: gather(x, source)), "index_select compiled", moved=moved)
    add("unpermute", shape, time_ms(lambda: combine(routed, place, weight)), "index compiled", moved=moved)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="benches, by name: " + ", ".join(benches))
    parser.add_argument("--out", help="JSON lines go here too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here")
        return 77
    wanted = [name for name in arguments.only.split(",") if name] or list(benches)
    unknown = [name for name in wanted if name not in benches]
    if unknown:
        parser.error(f"there is no bench {', '.join(unknown)}; those here: {', '.join(benches)}")
    torch.manual_seed(1)
    torch._functorch.config.donated_buffer = False  # backward passes are timed over one kept graph
    failed = 0
    for name in wanted:
        start = time.perf_counter()
        try:
            benches[name]()
        except Exception as error:  # one peer that cannot run here must not hide the others
            failed = 1
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        torch.cuda.empty_cache()
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    if arguments.out:
        with open(arguments.out, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return failed


if __name__ == "__main__":
    sys.exit(main())
