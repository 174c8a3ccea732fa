#!/usr/bin/env python3
"""One table of our rows beside their peers':

  compare.py --ours bench.json [--peers peers.json] [--step bench_step.json] [--step-peer torch_step.txt]...
             [--graph eager.json graph.json] [--markdown FILE]

bench.json comes from bench_cuda, peers.json from peers.py: rows are joined by (name, shape); what stands in parentheses after one of our
names is a variant of ours ("mla_attention_backward (deterministic)") and has the peer of the plain name. bench_step.json is the figures
of `hadal bench --json`, torch_step.txt what torch_step.py printed; --graph are such figures of run.cuda_graph false and true. ratio =
peer's time over ours: above 1 we are faster. Peers that cannot run on a machine without network are quoted, with their source.
--markdown writes the rows for tests/bench/RESULTS.md.
"""
import argparse
import json
import re
import sys

# XunhaoLai/native-sparse-attention-triton on one H100 80 GB HBM3, quoted from spec/gpu.md 14 where peers.py could not run it: another card
# of the same kind.
TRITON_NSA = {8192: (1.60, 1.41, 2.48, 5.47), 32768: (13.0, 10.2, 10.1, 20.4), 65536: (43.8, 37.0, 22.9, 46.3)}
TRITON_NSA_ROWS = ("nsa_compressed_select", "nsa_compressed_backward", "nsa_selected_forward", "nsa_selected_backward")
SUMS = {"nsa two branches, forward": (TRITON_NSA_ROWS[0], TRITON_NSA_ROWS[2]), "nsa two branches, backward": (TRITON_NSA_ROWS[1], TRITON_NSA_ROWS[3])}
GRAPH_TOKENS = 4096
STEP_TOKENS = 4 * 4096  # of configs/bench/v2_lite_slice.yaml, and of torch_step.py as run.sh calls it
DENSE = {"nsa two branches, forward": "gqa_attention_forward", "nsa two branches, backward": "gqa_attention_backward"}


def read_rows(path):
    with open(path) as file:
        return [json.loads(line) for line in file if line.strip().startswith("{")]


def nsa_shape(length):
    return f"b1 h64/4 s{length} d128"


def with_published(peers):
    """The peers, and what was published of those that were not measured."""
    measured = {(row["name"], row["shape"]) for row in peers}
    return peers + [{"name": name, "shape": nsa_shape(length), "ms": ms, "peer": "Triton NSA, published, other H100"}
                    for length, times in TRITON_NSA.items() for name, ms in zip(TRITON_NSA_ROWS, times)
                    if (name, nsa_shape(length)) not in measured]


def rate_of(row):
    if "tflops" in row:
        return f"{row['tflops']:.0f} TFLOP/s"
    if "gbs" in row:
        return f"{row['gbs']:.0f} GB/s"
    return "tokens_per_s" in row and f"{row['tokens_per_s']:.0f} tok/s" or ""


def limit_of(row):
    return "bf16 peak" if "tflops" in row else "copy" if "gbs" in row else ""


def with_sums(ours, peers):
    """NSA's two branches together, ours and the peer's, and against dense attention of the same shape."""
    ours, peers = list(ours), list(peers)
    times = {(row["name"], row["shape"]): row["ms"] for row in ours}
    by_key = {(row["name"], row["shape"]): row for row in peers}
    for name, parts in SUMS.items():
        for length in TRITON_NSA:
            keys = [(part, nsa_shape(length)) for part in parts]
            if not all(key in times for key in keys):
                continue
            ours.append({"name": name, "shape": nsa_shape(length), "ms": sum(times[key] for key in keys)})
            peers.append({"name": name, "shape": nsa_shape(length), "ms": sum(by_key[key]["ms"] for key in keys), "peer": by_key[keys[0]]["peer"]})
            against = by_key.get((DENSE[name], nsa_shape(length)))
            if against:
                ours.append({**ours[-1], "name": name + " (against dense)"})
                peers.append({**against, "name": ours[-1]["name"]})
    return ours, peers


def step_rows(figures_path, peer_paths):
    """Whole steps, by routing: (ours, peers)."""
    ours, peers = [], []
    if figures_path:
        with open(figures_path) as file:
            figures = json.load(file)
        for routing, rate in figures["tokens_per_s"].items():
            ours.append({"name": "whole step", "shape": f"v2_lite_slice {routing}", "tokens_per_s": rate, "ms": 1e3 * STEP_TOKENS / rate,
                         "fraction": figures["flops_share_of_gemm_peak"] if routing == "natural" else None, "gib": figures["peak_bytes"] / 2**30})
    for path in peer_paths:
        with open(path) as file:
            for line in file:
                found = re.search(r"^torch (\S+) .*tokens/s=(\d+) ms=([\d.]+) .*peak_gib=([\d.]+)", line)
                if found:
                    version, rate, ms, gib = found.groups()
                    peers.append({"name": "whole step", "shape": f"v2_lite_slice {'forced' if ' forced ' in line else 'natural'}", "ms": float(ms),
                                  "tokens_per_s": float(rate), "gib": float(gib), "peer": f"torch {version.split('+')[0]} compiled step"})
    return ours, peers


def graph_rows(paths):
    """A step launched as one graph beside the same step enqueued op by op: (ours, peers)."""
    rows = []
    for path in paths or []:
        with open(path) as file:
            figures = json.load(file)
        rate = figures["tokens_per_s"]["natural"]
        rows.append([{"name": "step as a CUDA graph", "shape": "h100_small of 4 layers, 1 x 4096 tokens", "tokens_per_s": rate, "ms": 1e3 * GRAPH_TOKENS / rate,
                      "gib": figures["peak_bytes"] / 2**30, "peer": "own, op by op"}])
    return reversed(rows) if rows else ([], [])


def joined(ours, peers):
    """(our row or None, peer's row or None), ours in their order, then the peers that nothing of ours was measured against."""
    by_key = {(row["name"], row["shape"]): row for row in peers}
    used, table = set(), []
    for row in ours:
        key = next((k for k in ((row["name"], row["shape"]), (re.sub(r" \(.*\)$", "", row["name"]), row["shape"])) if k in by_key), None)
        used.add(key)
        table.append((row, by_key.get(key)))
    return table + [(None, row) for key, row in by_key.items() if key not in used]


def cells(our, peer):
    row = our or peer
    fraction = our.get("fraction") if our else None
    more = " ".join(f"{label} {value['gib']:.1f} GiB" for label, value in (("ours", our), ("peer", peer)) if value and "gib" in value)
    extra = f"{peer['extra_mib']} MiB extra" if peer and "extra_mib" in peer else ""
    return [row["name"], row["shape"], f"{our['ms']:.3f}" if our else "not measured", rate_of(our) if our else "",
            f"{100 * fraction:.0f} % of {limit_of(our) or 'peak'}" if fraction else "", (peer["peer"] + (", " + extra if extra else "")) if peer else "none",
            f"{peer['ms']:.3f}" if peer else "", f"{peer['ms'] / our['ms']:.2f}" if our and peer else "", more]


HEAD = ["row", "shape", "ours ms", "rate", "of limit", "peer", "peer ms", "ratio", "memory"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peers")
    parser.add_argument("--step")
    parser.add_argument("--step-peer", action="append", default=[])
    parser.add_argument("--graph", nargs=2)
    parser.add_argument("--markdown")
    arguments = parser.parse_args()
    rows = read_rows(arguments.ours)
    ceilings = next((row for row in rows if row["name"] == "ceilings"), None)
    peers = with_published(read_rows(arguments.peers) if arguments.peers else [])
    ours, peers = with_sums([row for row in rows if row["name"] != "ceilings"], peers)
    our_steps, peer_steps = step_rows(arguments.step, arguments.step_peer)
    graph, eager = graph_rows(arguments.graph)
    table = [cells(our, peer) for our, peer in joined(ours + our_steps + graph, peers + peer_steps + eager)]
    widths = [max(len(line[i]) for line in [HEAD] + table) for i in range(len(HEAD))]
    for line in [HEAD] + table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    if ceilings:
        print(f"ceilings measured by bench_cuda: {ceilings['tflops']:.0f} TFLOP/s bf16 8192^3, {ceilings['gbs']:.0f} GB/s copy (read + written)")
    if arguments.markdown:
        with open(arguments.markdown, "w") as file:
            file.writelines("| " + " | ".join(line) + " |\n" for line in [HEAD, ["---"] * len(HEAD)] + table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
