"""The models that the benchmarks measure: realistic shapes, random weights."""

from dataclasses import dataclass, field

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from calmctl import ComposedModelForCausalLM, compose


@dataclass(frozen=True)
class Preset:
    """Shapes of an anchor and an aug, and how often the aug is tapped.

    Attributes:
        every: tap every `every`-th aug layer.
        vocabularies: sizes to measure with.
        context: cached tokens of a decoding step, and tokens of a prefill.
        train_shape: (batch, seq) of a training step.
    """

    model_type: str
    anchor: dict[str, int]
    aug: dict[str, int]
    every: int
    vocabularies: tuple[int, ...]
    context: int = 512
    train_shape: tuple[int, int] = (2, 128)
    settings: dict[str, object] = field(default_factory=dict)


def _shape(layers: int, width: int, heads: int, kv_heads: int, inner: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
    }


PRESETS = {
    # The paper's rule (every 4th aug layer) would give this aug one connection; every 2nd gives three.
    "llama": Preset("llama", _shape(12, 768, 12, 12, 2048), _shape(6, 384, 6, 6, 1024), 2, (32_000, 256_000)),
    # Small enough that the overhead around the model matters, as it does on a GPU.
    "small": Preset("llama", _shape(6, 384, 6, 6, 1024), _shape(4, 256, 4, 4, 512), 2, (8_000,)),
    # Qwen2-1.5B and Qwen2-0.5B.
    "qwen2": Preset(
        "qwen2",
        _shape(28, 1536, 12, 2, 8960),
        _shape(24, 896, 14, 2, 4864),
        4,
        (151_936,),
        train_shape=(4, 512),
        settings={"tie_word_embeddings": True},
    ),
    "quick": Preset(
        "llama", _shape(4, 64, 4, 4, 128), _shape(2, 32, 2, 2, 64), 1, (500,), context=32, train_shape=(2, 16)
    ),
}


def base(preset: Preset, role: str, vocabulary: int, dtype: str, device: str, seed: int = 0) -> PreTrainedModel:
    """Return the anchor or the aug of a preset with random weights."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        preset.model_type,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **getattr(preset, role),
        **preset.settings,
    )
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    # One pool of random numbers for all matrices: as good as fresh ones here, and many times as fast.
    pool = torch.randn(1_000_003).mul_(0.02).to(model.dtype)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            for piece in parameter.data.view(-1).split(len(pool)):
                piece.copy_(pool[: len(piece)])
    return model.to(device).eval()


def composed(preset: Preset, anchor: PreTrainedModel, *augs: PreTrainedModel) -> ComposedModelForCausalLM:
    """Return the composed model; its bridges have the anchor's dtype and are not zero-initialised."""
    return compose(anchor, list(augs), every=preset.every, zero_init=False).to(anchor.dtype)
