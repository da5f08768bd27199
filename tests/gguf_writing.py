"""GGUF files of tiny Llamas with tokenizers of bytes, as llama.cpp's converter writes them; and the same as folders."""

from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

MERGES = (("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "b"))
SPECIAL = ("<|start|>", "<|end|>")
HEADS, KV_HEADS = 4, 2
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip
STORED = {
    "F32": gguf.GGMLQuantizationType.F32,
    "F16": gguf.GGMLQuantizationType.F16,
    "BF16": gguf.GGMLQuantizationType.BF16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
}


def byte_tokenizer(merges: tuple[tuple[str, str], ...] = MERGES) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with a few merges and special tokens."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, list(merges)))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=SPECIAL[0], eos_token=SPECIAL[1])


def small_llama(seed: int, tokenizer: PreTrainedTokenizerFast, layers: int = 2, tied: bool = False) -> PreTrainedModel:
    """Return a random Llama whose settings a GGUF file keeps exactly."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=128, rms_norm_eps=2.0**-20,
        bos_token_id=0, eos_token_id=1, tie_word_embeddings=tied, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def write_gguf(
    file: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, stored: str = "F32", **more: object
) -> Path:
    """Write a model and its tokenizer as one GGUF file, and return it.

    Args:
        stored: how matrices are stored, one of `STORED`; vectors are float32.
        more: further metadata, by name; `arch` takes the place of the architecture's name.
    """
    config, arch = model.config, str(more.pop("arch", "llama"))
    writer = gguf.GGUFWriter(file, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    for name, value in more.items():
        writer.add_uint16(name.replace("__", "."), value)
    if tokenizer is not None:
        _add_tokenizer(writer, tokenizer)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values, kind = _packed(_as_llama_cpp(name, tensor), stored if tensor.ndim > 1 else "F32")
        writer.add_tensor(_gguf_name(name), values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def write_folder(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, stored: str = "F32") -> Path:
    """Write the same as a folder, with weights that went through the given type."""
    state = {
        name: torch.from_numpy(gguf.dequantize(*_packed(tensor.numpy(), stored if tensor.ndim > 1 else "F32")).copy())
        for name, tensor in model.state_dict().items()
    }
    other = LlamaForCausalLM(model.config)
    other.load_state_dict(state)
    other.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)


def _gguf_name(name: str) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, _, index, *path = name.split(".")
    return f"blk.{index}.{NAMES['.'.join(path[:-1])]}.{path[-1]}"


def _as_llama_cpp(name: str, tensor: Tensor) -> np.ndarray:
    """Return a weight as llama.cpp orders it: of queries and keys, pairs that are rotated together are neighbours."""
    heads = HEADS if ".q_proj." in name else KV_HEADS if ".k_proj." in name else None
    if heads is None:
        return tensor.numpy()
    rows, columns = tensor.shape
    return tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns).numpy()


def _packed(values: np.ndarray, stored: str) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    return gguf.quantize(np.ascontiguousarray(values), STORED[stored]), STORED[stored]
