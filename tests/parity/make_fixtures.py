"""Makes tests/parity/fixtures: small random models by Hugging Face transformers, with token ids and logits.

    python tests/parity/make_fixtures.py [DIR]

Needs transformers >= 5.23 and torch. The result is committed, so that the tests need no Python. Each directory holds the model
as save_pretrained writes it, and reference.safetensors: tokens I64 [B, S], logits F32 [B, S, V] (eager attention, f32).

Where implementations differ (spec/interop.md 3.3), the fixtures stay on common ground:
- groups that a router drops count as -inf here and in this version's V3, as 0.0 in its V2. V2's scores are softmax
  probabilities, hence positive, and the kept groups always hold top-k experts, so 0.0 is never chosen;
- the correction biases are random, some negative: V3 with -inf is exactly what is under test;
- rms_norm_eps is 1e-6, which transformers uses for the latent norms whatever the config says;
- a seed is taken only if no token of any router is within 1e-4 of another choice, and no query within 1e-4 of other sparse
  blocks, so that rounding cannot change experts or blocks.
- transformers 4.57 leaves YaRN's temperature out of V2's scores; it agrees on every fixture but v2_greedy, which has both;
- V2 takes complex views of the queries, so its head sizes are even but for v_head_dim.
The nsa_* fixtures come from Hadal's own reference code (src/interop/hadal_nsa), which is written straight from the formulas.
"""

import json
import math
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "src" / "interop"))
BATCH, LENGTH, NSA_LENGTH = 2, 40, 61


def yarn(mscale=1.0, mscale_all_dim=1.0, factor=4.0):
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": factor, "original_max_position_embeddings": 16, "beta_fast": 32.0,
            "beta_slow": 1.0, "mscale": mscale, "mscale_all_dim": mscale_all_dim}


PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
COMMON = dict(vocab_size=96, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=3, num_attention_heads=4,
              num_key_value_heads=4, n_shared_experts=1, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
              max_position_embeddings=64, rope_parameters=PLAIN)
V3 = dict(COMMON, n_routed_experts=8, num_experts_per_tok=3, n_group=1, topk_group=1, routed_scaling_factor=2.5, norm_topk_prob=True,
          first_k_dense_replace=1, q_lora_rank=12)
V2 = dict(COMMON, n_routed_experts=8, num_experts_per_tok=3, routed_scaling_factor=1.0, first_k_dense_replace=1, q_lora_rank=None,
          topk_method="greedy", norm_topk_prob=False)

# name: (class, config, how it is saved)
FIXTURES = {
    "v3_groups": (DeepseekV3ForCausalLM, dict(V3, n_group=4, topk_group=2), {}),
    "v3_direct_odd": (DeepseekV3ForCausalLM, dict(V3, q_lora_rank=None, first_k_dense_replace=0, hidden_size=36, num_attention_heads=3,
                      num_key_value_heads=3, qk_nope_head_dim=5, qk_rope_head_dim=6, v_head_dim=7, n_routed_experts=6,
                      n_shared_experts=2, num_experts_per_tok=2), {"fused": True}),
    "v3_yarn": (DeepseekV3ForCausalLM, dict(V3, first_k_dense_replace=2, n_group=2, topk_group=1, norm_topk_prob=False,
                routed_scaling_factor=1.5, rope_parameters=yarn()), {"shard": "40KB"}),
    "v3_yarn_old_config": (DeepseekV3ForCausalLM, dict(V3, q_lora_rank=None, rope_parameters=yarn(1.0, 0.707)), {"old_config": True}),
    "v2_greedy": (DeepseekV2ForCausalLM, dict(V2, n_shared_experts=2, rope_parameters=yarn(0.707, 0.707)), {}),
    "v2_grouped": (DeepseekV2ForCausalLM, dict(V2, q_lora_rank=12, topk_method="group_limited_greedy", n_group=4, topk_group=2,
                   routed_scaling_factor=4.0, first_k_dense_replace=0, v_head_dim=5, qk_nope_head_dim=6), {}),
    "v2_old_config": (DeepseekV2ForCausalLM, dict(V2, first_k_dense_replace=2, topk_method="group_limited_greedy", n_group=2,
                      topk_group=1, num_experts_per_tok=2), {"old_config": True}),
}
NSA = dict(V3, attention_dense_layers=[1], attention_kind="mla",
           nsa=dict(block_length=8, block_stride=4, select_block=8, num_selected=4, window=10, tie_up=False, num_select_groups=2))
NSA_FIXTURES = {
    "nsa_mla": NSA,
    "nsa_mla_tied": dict(NSA, q_lora_rank=None, attention_dense_layers=[], rope_parameters=yarn(), n_group=4, topk_group=2,
                         nsa=dict(NSA["nsa"], tie_up=True, num_select_groups=1, block_stride=2, num_selected=5, window=5)),
    "nsa_gqa": dict(NSA, attention_kind="gqa", num_key_value_heads=2, qk_head_dim=8, v_head_dim=6, q_lora_rank=None, kv_lora_rank=None,
                    qk_nope_head_dim=None, qk_rope_head_dim=None),
}


def fill(model):
    """Weights that make every part matter: unit-variance matrices, gains around 1, biases of either sign."""
    with torch.no_grad():
        for name, tensor in list(model.named_parameters()) + list(model.named_buffers()):
            if name.endswith(("e_score_correction_bias", "gate.bias")):
                tensor.normal_(std=0.2)
            elif name.endswith("position") or "compress" in name and not name.endswith("norm.weight"):
                tensor.normal_(std=0.3)
            elif "norm" in name:
                tensor.normal_(mean=1.0, std=0.2)
            elif tensor.dim() >= 2:
                tensor.normal_(std=1.0 / math.sqrt(tensor.shape[-1]))


def margin(config, logits, bias):
    """Smallest distance, over tokens, of a chosen expert or group from one that was not chosen."""
    v3 = bias is not None
    scores = logits.double().sigmoid() + bias.double() if v3 else logits.double().softmax(-1)
    groups, kept = getattr(config, "n_group", 1) or 1, getattr(config, "topk_group", 1) or 1
    worst = math.inf
    if groups > 1:
        split = scores.unflatten(-1, (groups, -1))
        value = (split.topk(2, dim=-1).values.sum(-1) if v3 else split.max(-1).values).sort(-1, descending=True)
        worst = (value.values[:, kept - 1] - value.values[:, kept]).min().item()
        mask = torch.zeros_like(value.values, dtype=torch.bool).scatter(-1, value.indices[:, :kept], True)
        scores = split.masked_fill(~mask[..., None], -math.inf).flatten(1)
    ordered = scores.sort(-1, descending=True).values
    k = config.num_experts_per_tok
    return min(worst, (ordered[:, k - 1] - ordered[:, k]).min().item())


def selection_margin(score, chosen):
    """Smallest distance of a selected block's score from one that was not selected; forced and future blocks do not compete."""
    ordered = score.sort(-1, descending=True).values
    if ordered.shape[-1] <= chosen:
        return math.inf
    gap = ordered[..., chosen - 1] - ordered[..., chosen]
    competing = ordered[..., chosen - 1].isfinite() & ordered[..., chosen].isfinite() & (ordered[..., chosen - 1] > 0)
    return gap[competing].min().item() if competing.any() else math.inf


def run(model, tokens):
    """Logits, and the smallest margin of a discrete choice."""
    margins = []

    def watch(module, inputs, output):
        flat = inputs[0].reshape(-1, inputs[0].shape[-1])
        logits = torch.nn.functional.linear(flat.float(), module.weight.float())
        margins.append(margin(model.config, logits, getattr(module, "e_score_correction_bias", None)))

    hooks = [m.register_forward_hook(watch) for n, m in model.named_modules() if n.endswith("mlp.gate")]
    code = sys.modules[type(model).__module__]
    select = getattr(code, "select_blocks", None)
    if select:
        def select_watched(score, chosen):
            margins.append(selection_margin(score, chosen))
            return select(score, chosen)

        code.select_blocks = select_watched
    with torch.no_grad():
        logits = model(tokens).logits if select else model(tokens, use_cache=False).logits
    if select:
        code.select_blocks = select
    for hook in hooks:
        hook.remove()
    return logits, min(margins, default=math.inf)


def old_config(path, v3):
    """config.json as transformers 4.x writes it."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    config["moe_layer_freq"] = 1
    if v3:
        config.update(topk_method="noaux_tc", scoring_func="sigmoid")
    else:
        config.update(scoring_func="softmax", aux_loss_alpha=0.001, seq_aux=True)
    config["transformers_version"] = "4.46.3"
    path.write_text(json.dumps(config, indent=2) + "\n")


def make(name, build, out, save):
    for seed in range(1000):
        torch.manual_seed(seed)
        model = build()
        fill(model)
        tokens = torch.randint(0, model.config.vocab_size, (BATCH, NSA_LENGTH if name.startswith("nsa") else LENGTH))
        logits, routing_margin = run(model, tokens)
        if routing_margin > 1e-4:
            break
    target = out / name
    shutil.rmtree(target, ignore_errors=True)
    save(model, target)
    (target / "generation_config.json").unlink(missing_ok=True)
    for code in target.glob("*.py"):
        code.unlink()
    save_file({"tokens": tokens, "logits": logits.float().contiguous()}, str(target / "reference.safetensors"))
    size = sum(f.stat().st_size for f in target.iterdir())
    print(f"{name}: seed {seed}, margin {routing_margin:.1e}, largest logit {logits.abs().max():.2f}, {size} bytes")
    return size


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "fixtures"
    total = 0
    for name, (cls, config, how) in FIXTURES.items():
        config_class = DeepseekV3Config if cls is DeepseekV3ForCausalLM else DeepseekV2Config

        def build(cls=cls, config_class=config_class, config=config):
            return cls._from_config(config_class(**json.loads(json.dumps(config))), attn_implementation="eager").eval()

        def save(model, target, how=how):
            options = {"max_shard_size": how.get("shard", "1GB")}
            if how.get("fused"):
                options["save_original_format"] = False
            model.save_pretrained(target, **options)
            if how.get("old_config"):
                old_config(target / "config.json", isinstance(model, DeepseekV3ForCausalLM))

        total += make(name, build, out, save)
    from hadal_nsa.configuration_hadal_nsa import HadalNsaConfig
    from hadal_nsa.modeling_hadal_nsa import HadalNsaForCausalLM

    for name, config in NSA_FIXTURES.items():
        total += make(name, lambda config=config: HadalNsaForCausalLM(HadalNsaConfig(**json.loads(json.dumps(config)))).eval(), out,
                      lambda model, target: model.save_pretrained(target))
    print(f"transformers {transformers.__version__}, torch {torch.__version__}: {total} bytes in all")
    assert total <= 4 << 20


if __name__ == "__main__":
    main()
