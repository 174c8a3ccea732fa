"""Reference implementation of Hadal's sparse models: native sparse attention over MLA or grouped-query attention, DeepSeekMoE.

Written to be read and checked, not to be fast: every score matrix is whole, generation recomputes the sequence. Shapes in
comments: B sequences, T tokens, A heads, G groups that select together, N compressed blocks, M selection blocks.
MTP tensors of a checkpoint are not used.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_hadal_nsa import HadalNsaConfig


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


def temperature(factor, mscale):
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1.0 else 1.0


class Rotary:
    """Interleaved rotation: channels (2i, 2i+1) turn by position * f_i; YaRN bends the f_i and scales."""

    def __init__(self, width, config):
        rotary = config.rope_parameters
        theta, yarn = rotary["rope_theta"], rotary["rope_type"] == "yarn"
        self.frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)
        self.amplitude = self.score_factor = 1.0
        if not yarn:
            return
        factor, length = rotary["factor"], rotary["original_max_position_embeddings"]

        def turning(rotations):
            return width * math.log(length / (2 * math.pi * rotations)) / (2 * math.log(theta))

        low = max(math.floor(turning(rotary.get("beta_fast", 32))), 0)
        high = min(math.ceil(turning(rotary.get("beta_slow", 1))), width - 1)
        high = high + 0.001 if high == low else high
        ramp = ((torch.arange(width // 2, dtype=torch.float64, device="cpu") - low) / (high - low)).clamp(0, 1)
        self.frequencies = self.frequencies / factor * ramp + self.frequencies * (1 - ramp)
        all_dim = rotary.get("mscale_all_dim", 0.0)
        self.amplitude = temperature(factor, rotary.get("mscale", 1.0)) / temperature(factor, all_dim)
        self.score_factor = temperature(factor, all_dim) ** 2

    def __call__(self, x, positions):
        """x [B, T, ..., width], positions [T]."""
        angles = positions.to(torch.float64)[:, None] * self.frequencies.to(x.device)
        shape = [1, len(positions)] + [1] * (x.dim() - 3) + [x.shape[-1] // 2]
        cos = (angles.cos() * self.amplitude).to(x.dtype).reshape(shape)
        sin = (angles.sin() * self.amplitude).to(x.dtype).reshape(shape)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)


def attend(q, k, v, mask, scale):
    """q [B, T, A, dk], k [B, S, A, dk], v [B, S, A, dv], mask broadcastable to [B, A, T, S] -> output and weights.
    A query that sees nothing gets zeros."""
    scores = torch.einsum("btad,bsad->bats", q, k) * scale
    scores = scores.masked_fill(~mask, float("-inf"))
    seen = mask.any(-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(~seen, 0.0), dim=-1, dtype=torch.promote_types(q.dtype, torch.float32))
    weights = (weights * seen).to(q.dtype)
    return torch.einsum("bats,bsad->btad", weights, v), weights


def blocks_of(x, length, stride):
    """x [B, T, w] -> overlapping blocks [B, N, length, w]; N = 0 for T < length."""
    count = (x.shape[1] - length) // stride + 1 if x.shape[1] >= length else 0
    rows = torch.arange(count, device=x.device)[:, None] * stride + torch.arange(length, device=x.device)
    return x[:, rows]


def pool(values, logits, position, length, stride):
    """Gated pooling per channel: softmax over a block's tokens of logits + position, applied to values."""
    gates = torch.softmax(blocks_of(logits, length, stride) + position, dim=2)
    return (gates * blocks_of(values, length, stride)).sum(2)


def block_scores(weights, groups, length, stride, size):
    """weights of the compressed branch [B, A, T, N] -> how much each selection block matters to a group of heads,
    [B, G, T, M]: infinite for the first and the two local blocks, minus infinite for blocks ahead."""
    batch, heads, tokens, count = weights.shape
    num_blocks = -(-tokens // size)
    share = torch.zeros(count, num_blocks, dtype=weights.dtype, device=weights.device)
    for j in range(num_blocks):
        for m in range(size // stride):
            for n in range(length // stride):
                i = size // stride * j + m - n
                if 0 <= i < count:
                    share[i, j] += 1
    score = (weights @ share).reshape(batch, groups, heads // groups, tokens, num_blocks).sum(2)
    own = (torch.arange(tokens, device=weights.device) // size)[:, None]
    block = torch.arange(num_blocks, device=weights.device)
    forced = (block == 0) | (block == own) | (block == own - 1)
    return score.masked_fill(forced, float("inf")).masked_fill(block > own, float("-inf"))


def select_blocks(score, chosen):
    """The `chosen` best blocks of each query, lower index first among equals; never one ahead. [B, G, T, M] of bool."""
    order = torch.sort(score, dim=-1, descending=True, stable=True).indices[..., :chosen]
    return torch.zeros_like(score, dtype=torch.bool).scatter(-1, order, True) & (score > float("-inf"))


def branch_masks(tokens, length, stride, window, device):
    """Causal mask of compressed blocks [T, N], of tokens [T, T], and of the sliding window [T, T]."""
    t = torch.arange(tokens, device=device)[:, None]
    count = (tokens - length) // stride + 1 if tokens >= length else 0
    compressed = torch.arange(count, device=device) * stride + length - 1 <= t
    causal = torch.arange(tokens, device=device) <= t
    return compressed, causal, causal & (torch.arange(tokens, device=device) > t - window)


def selected_mask(picked, causal, size, heads):
    """Blocks [B, G, T, M] -> tokens [B, A, T, T]."""
    tokens = causal.shape[0]
    mask = picked.repeat_interleave(size, dim=-1)[..., :tokens] & causal
    return mask.repeat_interleave(heads // mask.shape[1], dim=1)


class Holder(nn.Module):
    """A place for named tensors."""


class Pooling(nn.Module):
    def __init__(self, width, length):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width))
        self.position = nn.Parameter(torch.zeros(length, width))


class MlaAttention(nn.Module):
    def __init__(self, config, sparse):
        super().__init__()
        hidden, heads = config.hidden_size, config.num_attention_heads
        self.heads, self.latent = heads, config.kv_lora_rank
        self.nope, self.rope, self.value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        width = heads * (self.nope + self.rope)
        self.direct = config.q_lora_rank is None
        if self.direct:
            self.q_proj = nn.Linear(hidden, width, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=False)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, config.rms_norm_eps)
            self.q_b_proj = nn.Linear(config.q_lora_rank, width, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.latent + self.rope, bias=False)
        self.kv_a_layernorm = RMSNorm(self.latent, config.rms_norm_eps)
        self.kv_b_proj = nn.Linear(self.latent, heads * (self.nope + self.value), bias=False)
        self.o_proj = nn.Linear(heads * self.value, hidden, bias=False)
        self.rotary = Rotary(self.rope, config)
        self.scale = (self.nope + self.rope) ** -0.5 * self.rotary.score_factor
        self.options = config.nsa if sparse else None
        if not sparse:
            return
        self.nsa = Holder()
        if not self.options["tie_up"]:
            for name in ("cmp", "win"):
                branch = Holder()
                branch.kv_b_proj = nn.Linear(self.latent, heads * (self.nope + self.value), bias=False)
                setattr(self.nsa, name, branch)
        compress, length = Holder(), self.options["block_length"]
        compress.latent_weight = nn.Parameter(torch.zeros(self.latent, self.latent))
        compress.rope_weight = nn.Parameter(torch.zeros(self.rope, self.latent))
        compress.latent_position = nn.Parameter(torch.zeros(length, self.latent))
        compress.rope_position = nn.Parameter(torch.zeros(length, self.rope))
        compress.norm = RMSNorm(self.latent, config.rms_norm_eps)
        self.nsa.compress = compress
        self.nsa.gate = nn.Linear(hidden, 3 * heads)

    def keys_values(self, up, latent, rotated):
        """latent [B, S, Rkv], rotated shared key [B, S, dr] -> k [B, S, A, dn+dr], v [B, S, A, dv]."""
        both = up(latent).unflatten(-1, (self.heads, self.nope + self.value))
        shared = rotated[:, :, None].expand(-1, -1, self.heads, -1)
        return torch.cat((both[..., : self.nope], shared), dim=-1), both[..., self.nope :]

    def forward(self, x):
        tokens = x.shape[1]
        positions = torch.arange(tokens, device=x.device)
        q = self.q_proj(x) if self.direct else self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.unflatten(-1, (self.heads, self.nope + self.rope))
        q = torch.cat((q[..., : self.nope], self.rotary(q[..., self.nope :], positions)), dim=-1)
        latent, key = self.kv_a_proj_with_mqa(x).split((self.latent, self.rope), dim=-1)
        latent = self.kv_a_layernorm(latent)
        rotated = self.rotary(key, positions)
        if self.options is None:
            k, v = self.keys_values(self.kv_b_proj, latent, rotated)
            out, _ = attend(q, k, v, positions[None, :] <= positions[:, None], self.scale)
            return self.o_proj(out.flatten(-2))

        nsa, compress = self.options, self.nsa.compress
        length, stride = nsa["block_length"], nsa["block_stride"]
        compressed, causal, local = branch_masks(tokens, length, stride, nsa["window"], x.device)
        pooled = pool(latent, latent @ compress.latent_weight.T, compress.latent_position, length, stride)
        pooled_key = pool(key, latent @ compress.rope_weight.T, compress.rope_position, length, stride)
        pooled_key = self.rotary(pooled_key, torch.arange(pooled_key.shape[1], device=x.device) * stride)
        up_cmp = self.kv_b_proj if nsa["tie_up"] else self.nsa.cmp.kv_b_proj
        up_win = self.kv_b_proj if nsa["tie_up"] else self.nsa.win.kv_b_proj
        o_cmp, weights = attend(q, *self.keys_values(up_cmp, compress.norm(pooled), pooled_key), compressed, self.scale)
        picked = select_blocks(block_scores(weights, nsa["num_select_groups"], length, stride, nsa["select_block"]), nsa["num_selected"])
        o_slc, _ = attend(q, *self.keys_values(self.kv_b_proj, latent, rotated),
                          selected_mask(picked, causal, nsa["select_block"], self.heads), self.scale)
        o_win, _ = attend(q, *self.keys_values(up_win, latent, rotated), local, self.scale)
        gates = torch.sigmoid(self.nsa.gate(x)).unflatten(-1, (3, self.heads, 1))
        out = gates[:, :, 0] * o_cmp + gates[:, :, 1] * o_slc + gates[:, :, 2] * o_win
        return self.o_proj(out.flatten(-2))


class GqaAttention(nn.Module):
    def __init__(self, config, sparse):
        super().__init__()
        hidden, self.heads, self.groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.width, self.value = config.qk_head_dim, config.v_head_dim
        self.q_proj = nn.Linear(hidden, self.heads * self.width, bias=False)
        self.o_proj = nn.Linear(self.heads * self.value, hidden, bias=False)
        self.rotary = Rotary(self.width, config)
        self.scale = self.width**-0.5 * self.rotary.score_factor
        self.options = config.nsa if sparse else None
        if not sparse:
            self.add_projections(self, hidden)
            return
        self.nsa = Holder()
        for name in ("cmp", "slc", "win"):
            setattr(self.nsa, name, self.add_projections(Holder(), hidden))
        self.nsa.phi_k = Pooling(self.width, self.options["block_length"])
        self.nsa.phi_v = Pooling(self.value, self.options["block_length"])
        self.nsa.gate = nn.Linear(hidden, 3 * self.heads)

    def add_projections(self, place, hidden):
        place.k_proj = nn.Linear(hidden, self.groups * self.width, bias=False)
        place.v_proj = nn.Linear(hidden, self.groups * self.value, bias=False)
        return place

    def keys_values(self, place, x):
        return place.k_proj(x).unflatten(-1, (self.groups, -1)), place.v_proj(x).unflatten(-1, (self.groups, -1))

    def spread(self, x):
        return x.repeat_interleave(self.heads // self.groups, dim=2)

    def compress(self, phi, x, length, stride):
        """x [B, T, G, w] -> [B, N, G, w], each group by itself with the same weights."""
        each = [pool(x[:, :, g], x[:, :, g] @ phi.weight.T, phi.position, length, stride) for g in range(self.groups)]
        return torch.stack(each, dim=2)

    def forward(self, x):
        tokens = x.shape[1]
        positions = torch.arange(tokens, device=x.device)
        q = self.rotary(self.q_proj(x).unflatten(-1, (self.heads, self.width)), positions)
        if self.options is None:
            k, v = self.keys_values(self, x)
            out, _ = attend(q, self.spread(self.rotary(k, positions)), self.spread(v), positions[None, :] <= positions[:, None], self.scale)
            return self.o_proj(out.flatten(-2))

        nsa = self.options
        length, stride = nsa["block_length"], nsa["block_stride"]
        compressed, causal, local = branch_masks(tokens, length, stride, nsa["window"], x.device)
        k, v = self.keys_values(self.nsa.cmp, x)
        k, v = self.compress(self.nsa.phi_k, k, length, stride), self.compress(self.nsa.phi_v, v, length, stride)
        k = self.rotary(k, torch.arange(k.shape[1], device=x.device) * stride)
        o_cmp, weights = attend(q, self.spread(k), self.spread(v), compressed, self.scale)
        picked = select_blocks(block_scores(weights, self.groups, length, stride, nsa["select_block"]), nsa["num_selected"])
        k, v = self.keys_values(self.nsa.slc, x)
        o_slc, _ = attend(q, self.spread(self.rotary(k, positions)), self.spread(v),
                          selected_mask(picked, causal, nsa["select_block"], self.heads), self.scale)
        k, v = self.keys_values(self.nsa.win, x)
        o_win, _ = attend(q, self.spread(self.rotary(k, positions)), self.spread(v), local, self.scale)
        gates = torch.sigmoid(self.nsa.gate(x)).unflatten(-1, (3, self.heads, 1))
        out = gates[:, :, 0] * o_cmp + gates[:, :, 1] * o_slc + gates[:, :, 2] * o_win
        return self.o_proj(out.flatten(-2))


class FeedForward(nn.Module):
    def __init__(self, hidden, width):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.n_routed_experts, config.hidden_size))
        self.e_score_correction_bias = nn.Parameter(torch.zeros(config.n_routed_experts), requires_grad=False)

    def forward(self, x):
        """x [tokens, H] -> chosen experts and their weights, [tokens, K]."""
        config, wide = self.config, torch.promote_types(x.dtype, torch.float32)
        scores = torch.sigmoid(F.linear(x.to(wide), self.weight.to(wide)))
        choice = scores + self.e_score_correction_bias
        groups = choice.unflatten(-1, (config.n_group, -1))
        best = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(-1).topk(config.topk_group, dim=-1).indices
        kept = torch.zeros(groups.shape[:2], dtype=torch.bool, device=x.device).scatter(1, best, True)
        choice = groups.masked_fill(~kept[..., None], float("-inf")).flatten(1)
        experts = choice.topk(config.num_experts_per_tok, dim=-1).indices
        weights = scores.gather(1, experts)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return experts, weights * config.routed_scaling_factor


class MoE(nn.Module):
    def __init__(self, config):
        super().__init__()
        hidden, width = config.hidden_size, config.moe_intermediate_size
        self.gate = Router(config)
        self.experts = nn.ModuleList(FeedForward(hidden, width) for _ in range(config.n_routed_experts))
        self.has_shared = config.n_shared_experts > 0
        if self.has_shared:
            self.shared_experts = FeedForward(hidden, config.n_shared_experts * width)

    def forward(self, x):
        flat = x.flatten(0, 1)
        experts, weights = self.gate(flat)
        out = torch.zeros_like(flat)
        for index, expert in enumerate(self.experts):
            token, slot = torch.where(experts == index)
            out = out.index_add(0, token, expert(flat[token]) * weights[token, slot, None].to(flat.dtype))
        out = out.reshape(x.shape)
        return out + self.shared_experts(x) if self.has_shared else out


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        sparse = layer not in config.attention_dense_layers
        dense = config.n_routed_experts == 0 or layer < config.first_k_dense_replace
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = (GqaAttention if config.attention_kind == "gqa" else MlaAttention)(config, sparse)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config.hidden_size, config.intermediate_size) if dense else MoE(config)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class HadalNsaPreTrainedModel(PreTrainedModel):
    config_class = HadalNsaConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block"]
    _keep_in_fp32_modules_strict = ["e_score_correction_bias"]

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, Router):
            nn.init.normal_(module.weight, std=self.config.initializer_range)


class HadalNsaModel(HadalNsaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(self, input_ids):
        x = self.embed_tokens(input_ids)
        for block in self.layers:
            x = block(x)
        return self.norm(x)


class HadalNsaForCausalLM(HadalNsaPreTrainedModel, GenerationMixin):
    def __init__(self, config):
        super().__init__(config)
        self.model = HadalNsaModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, labels=None, **kwargs):
        if attention_mask is not None and not bool(attention_mask.to(torch.bool).all()):
            raise ValueError("padded batches are not supported: blocks and windows count from a sequence's first token")
        logits = self.lm_head(self.model(input_ids))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        return {"input_ids": input_ids, "attention_mask": attention_mask}
