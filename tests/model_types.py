"""A tiny random causal LM of every model type of the installed transformers, shrunk from its default configuration."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from calmctl.modeling.configuration import PartsConfig
from tests.models import VOCABULARY, randomised

# Larger than this is not tiny: a size that no row below knows.
MOST_PARAMETERS = 4_000_000
# Size -> what configurations call it, wherever they have it. An indexer selects more keys (`index_topk`) than any test
# has: its scores are exactly 0 for many, and which of those are among the highest is chance.
SIZES: dict[int, tuple[str, ...]] = {
    VOCABULARY: ("vocab_size", "vocab_size_per_layer_input", "unpadded_vocab_size", "pronunciation_vocab_size",
                 "shape_vocab_size"),
    64: ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_target_positions",
         "ngram_vocab_size_base", "index_topk", "mm_posemb_size"),
    48: ("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "dff", "dim_ff", "d_inner",
         "moe_intermediate_size", "ffn_hidden_size", "expert_ffn_hidden_size", "feed_forward_size",
         "intermediate_size_mlp", "shared_expert_intermediate_size", "dense_intermediate_size",
         "moe_shared_expert_intermediate_size", "shared_experts_intermediate_size", "shared_intermediate_size"),
    32: ("hidden_size", "d_model", "n_embd", "embedding_dim", "emb_dim", "embedding_size", "word_embed_proj_dim",
         "input_embedding_size", "output_embedding_size", "adapter_input_size", "lru_width", "ple_embed_dim",
         "mm_embed_dim", "output_proj_dims", "audio_embed_dim"),
    16: ("q_lora_rank", "kv_lora_rank", "o_lora_rank", "hidden_size_per_layer_input", "qk_head_dim", "hc_lowrank",
         "router_hidden_size", "linear_head_dim", "pronunciation_embed_dim", "shape_embed_dim", "index_head_dim"),
    8: ("head_dim", "attention_head_size", "attention_head_dim", "d_head", "dim_head", "kv_channels", "v_head_dim",
        "qk_nope_head_dim", "qk_rope_head_dim", "swa_head_dim", "rotary_dim", "global_head_dim", "swa_v_head_dim",
        "state_size", "mamba_d_state", "ssm_state_size", "linear_key_head_dim", "linear_value_head_dim",
        "mamba_n_heads", "mamba_d_head", "mamba_num_heads", "mamba_head_dim", "time_step_rank", "mamba_dt_rank"),
    4: ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads",
        "num_encoder_attention_heads", "num_decoder_attention_heads", "attention_heads", "swa_num_attention_heads",
        "n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts", "linear_num_heads",
        "linear_num_value_heads", "chunk_size", "mamba_chunk_size", "index_n_heads",
        "sliding_window", "window_size", "attention_window_size", "local_attention", "sliding_window_size"),
    3: ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
        "num_encoder_layers", "num_decoder_layers", "num_blocks"),
    2: ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "linear_num_key_heads",
        "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"),
    1: ("n_group", "topk_group", "num_expert_group"),
}  # fmt: skip
SIZE_OF = {name: size for size, names in SIZES.items() for name in names}
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
# Sizes that a configuration may leave open, and then takes from its defaults.
MAY_BE_OPEN = ("head_dim", "num_key_value_heads")
# Multi-head latent attention has no groups.
LATENT = {"num_key_value_heads": 4, "head_dim": 8}
FULL_AND_LINEAR = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
HYBRID = {"layers_block_type": ["linear_attention", "hybrid", "hybrid"]}
GEMMA_3N = {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 4,
            "layer_types": ["full_attention", "sliding_attention"] * 2, "laurel_rank": 8}  # fmt: skip
QWEN = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}
QWEN_4 = {**QWEN, "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 64,
          "indexer_compress_ratio": 4}  # fmt: skip
# What only these need beside.
SETTINGS: dict[str, dict[str, Any]] = {
    "bailing_hybrid": FULL_AND_LINEAR,
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4,
                                                                   "mrope_section": [2, 1, 1]}}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
             "ffn_config": {"hidden_size": 32}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "gemma3n_text": GEMMA_3N,
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]]},
    "granitemoehybrid": FULL_AND_LINEAR,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": FULL_AND_LINEAR,
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"]},
    "longcat_flash": {"zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "moshi": {"audio_vocab_size": VOCABULARY},
    "qwen3_5": {"text_config": QWEN},
    "qwen3_5_moe": {"text_config": QWEN},
    "qwen3_5_moe_text": QWEN,
    "qwen3_5_text": QWEN,
    "qwen3_next": QWEN,
    "qwen4_exp": {"text_config": QWEN_4},
    "qwen4_exp_text": QWEN_4,
    "reformer": {"is_decoder": True, "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "num_buckets": 4,
                 "attn_layers": ["local", "lsh", "local"], "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4},
    "xlstm": {"hidden_size": 64, "qk_dim_factor": 1.0},  # heads are rounded up to a width of 64 in all
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "attention_head_dim": 16,
              "attention_hidden_size": 64},
    "zamba2": HYBRID,
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
# Types of which there is no tiny model, and why.
WITHOUT_TINY_MODEL = {
    "dots3_note": "its layers have settings of their own, by number",
    "dots3_note_text": "its layers have settings of their own, by number",
    "gemma3n": "needs timm",
    "gemma4_assistant": "drafts for another model, whose caches it reads",
    "gemma4_unified_assistant": "drafts for another model, whose caches it reads",
    "musicgen": "its default configuration is that of no causal model",
    "musicgen_melody": "its default configuration is that of no causal model",
}


def model_types() -> list[str]:
    """Return the model types of causal LMs that transformers has itself."""
    types = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING]
    return sorted(name for name in types if not issubclass(CONFIG_MAPPING[name], PartsConfig))


def tiny_settings(config_class: type) -> dict[str, Any]:
    """Return settings that make the default configuration of a class a small one, parts of it included."""
    fields = {name: getattr(config_class, name, None) for name in dir(config_class)}
    settings: dict[str, Any] = {}
    for name, default in fields.items():
        if name in SIZE_OF and (type(default) is int or default is None and name in MAY_BE_OPEN):
            settings[name] = SIZE_OF[name]
        elif name in SPECIAL:
            settings[name] = SPECIAL[name]
    if "kv_lora_rank" in settings:
        settings |= {name: size for name, size in LATENT.items() if name in settings}
    for name, part in (getattr(config_class, "sub_configs", None) or {}).items():
        if part is AutoConfig:
            part = type(getattr(config_class(), name))
            settings[name] = {"model_type": part.model_type, **tiny_settings(part)}
        else:
            settings[name] = tiny_settings(part)
    return settings


def merged(settings: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others in them, also in those of parts."""
    both = {name: merged(settings[name], value) for name, value in more.items() if isinstance(settings.get(name), dict)}
    return {**settings, **more, **both}


def tiny_model(model_type: str, seed: int = 1, **more: Any) -> PreTrainedModel:
    """Return a tiny model of a type whose parameters are all random.

    Raises:
        ValueError: it is not tiny.
    """
    settings = merged(tiny_settings(CONFIG_MAPPING[model_type]), SETTINGS.get(model_type, {}))
    config = AutoConfig.for_model(model_type, **settings)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{model_type}: {size:,} parameters are not tiny; add what it calls its sizes")
    torch.manual_seed(seed)
    return randomised(AutoModelForCausalLM.from_config(config, **more)).eval()
