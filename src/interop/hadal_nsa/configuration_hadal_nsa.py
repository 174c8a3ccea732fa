"""Shape of a Hadal model with native sparse attention (model_type "hadal_nsa")."""

from transformers import PretrainedConfig


class HadalNsaConfig(PretrainedConfig):
    """Holds the keys of config.json as they are. Rotation may come as rope_theta and rope_scaling, or as rope_parameters;
    it is kept as the latter, which every version of transformers writes and reads."""

    model_type = "hadal_nsa"

    def __init__(self, **kwargs):
        theta, scaling = kwargs.pop("rope_theta", 10000.0), kwargs.pop("rope_scaling", None)
        self.rope_parameters = {"rope_type": "default", "rope_theta": theta, **(scaling or {}), **(kwargs.pop("rope_parameters", None) or {})}
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "nsa"):
            setattr(self, key, kwargs.pop(key, None))
        defaults = {
            "attention_kind": "mla", "attention_dense_layers": [], "num_key_value_heads": None, "qk_head_dim": None,
            "q_lora_rank": None, "kv_lora_rank": None, "qk_nope_head_dim": None, "qk_rope_head_dim": None, "v_head_dim": None,
            "n_routed_experts": 0, "n_shared_experts": 0, "num_experts_per_tok": 1, "moe_intermediate_size": None,
            "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "norm_topk_prob": True, "first_k_dense_replace": 0,
            "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "initializer_range": 0.02, "num_nextn_predict_layers": 0,
        }
        for key, value in defaults.items():
            setattr(self, key, kwargs.pop(key, value))
        kwargs["tie_word_embeddings"] = False
        kwargs["use_cache"] = False
        super().__init__(**kwargs)
