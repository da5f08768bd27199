"""One tiny random causal LM per family of decoder-only models, with the family's characteristic traits.

Every model reads the vocabulary of tests/models.py. Windows are shorter than the sequences of the tests.
"""

from collections.abc import Callable

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.models import VOCABULARY, randomised

POSITIONS = 64
WINDOW = 4
SPECIAL = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
# Names that GPT-2's descendants keep for what everyone else calls hidden_size and so on.
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": POSITIONS}


def modern(layers: int = 3, heads: int = 4, kv_heads: int = 2, width: int = 32, **settings: object) -> dict:
    """Return settings in the names that most families share; grouped-query attention unless told otherwise."""
    return {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "max_position_embeddings": POSITIONS, **settings,
    }  # fmt: skip


# name -> model_type and settings. Depth, width and heads vary, so that neighbours in the table never fit by chance.
SETTINGS: dict[str, tuple[str, dict]] = {
    "Llama": ("llama", modern()),
    "Gemma": ("gemma", modern(2, heads=2, kv_heads=1, width=16, head_dim=16)),
    "Gemma 2": ("gemma2", modern(4, head_dim=8, sliding_window=WINDOW, attn_logit_softcapping=5.0,
                                 final_logit_softcapping=3.0, query_pre_attn_scalar=8)),
    "Gemma 3": ("gemma3_text", modern(3, heads=2, kv_heads=1, width=24, head_dim=8, sliding_window=WINDOW,
                                      layer_types=["sliding_attention", "sliding_attention", "full_attention"],
                                      query_pre_attn_scalar=8)),
    "Gemma 4": ("gemma4_text", modern(4, heads=2, kv_heads=1, width=16, head_dim=8, global_head_dim=8,
                                      sliding_window=WINDOW, final_logit_softcapping=3.0, num_kv_shared_layers=2,
                                      layer_types=["sliding_attention", "full_attention"] * 2,
                                      hidden_size_per_layer_input=4, vocab_size_per_layer_input=VOCABULARY)),
    "Qwen2": ("qwen2", modern(4, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=2)),
    "Qwen3": ("qwen3", modern(2, width=16, head_dim=8, tie_word_embeddings=True)),
    "Mistral": ("mistral", modern(3, sliding_window=WINDOW)),
    "Mixtral": ("mixtral", modern(2, width=16, num_local_experts=4, num_experts_per_tok=2)),
    "GPT-2": ("gpt2", GPT),
    "GPT-NeoX": ("gpt_neox", modern(2, heads=2, width=16, use_parallel_residual=True, rotary_pct=0.5)),
    "GPT-J": ("gptj", {**GPT, "rotary_dim": 4}),
    "OPT": ("opt", {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                    "word_embed_proj_dim": 16, "max_position_embeddings": POSITIONS}),
    "OPT, narrow embeddings": ("opt", {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 3,
                                       "num_attention_heads": 4, "word_embed_proj_dim": 16,
                                       "do_layer_norm_before": False, "max_position_embeddings": POSITIONS}),
    "BLOOM": ("bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "MPT": ("mpt", {"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": POSITIONS, "expansion_ratio": 2}),
    "Falcon, rotary": ("falcon", modern(3, new_decoder_architecture=True, num_kv_heads=2, alibi=False)),
    "Falcon, alibi": ("falcon", modern(2, width=16, new_decoder_architecture=False, multi_query=False,
                                       parallel_attn=False, bias=True, alibi=True)),
    "Phi": ("phi", modern(3, partial_rotary_factor=0.5)),
    "Phi-3": ("phi3", modern(2, heads=2, kv_heads=1, width=16, sliding_window=WINDOW)),
    "OLMo 2": ("olmo2", modern(3, kv_heads=4)),
    "Granite": ("granite", modern(2, width=16, embedding_multiplier=3.0, residual_multiplier=0.5,
                                  attention_multiplier=0.3, logits_scaling=2.0)),
    "SmolLM3": ("smollm3", modern(4, no_rope_layer_interval=2)),
}  # fmt: skip


def _builder(model_type: str, settings: dict) -> Callable[..., PreTrainedModel]:
    def build(seed: int = 1, vocabulary: int = VOCABULARY, **more: object) -> PreTrainedModel:
        torch.manual_seed(seed)
        sizes = {name: vocabulary for name in ("vocab_size", *(each for each in settings if "vocab_size" in each))}
        config = AutoConfig.for_model(model_type, **SPECIAL, **{**settings, **sizes})
        return randomised(AutoModelForCausalLM.from_config(config, **more)).eval()

    return build


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {name: _builder(*row) for name, row in SETTINGS.items()}
