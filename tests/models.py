"""Small random models for tests, built from configurations; nothing is downloaded."""

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from calmctl.baselines.adapted import AdaptedModelForCausalLM
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose

VOCABULARY = 50
FORMS = {
    "paper": {},
    "norm-rotary": {"norm": True, "rotary": True, "num_heads": 8},
    "sparse": {"connections": [[1, 0], [0, 2]], "rotary": True, "recency": True},
}


def llama(
    seed: int = 0, layers: int = 3, width: int = 32, heads: int = 4, kv_heads: int = 2, **settings: object
) -> PreTrainedModel:
    """Return a random Llama."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=2 * width, max_position_embeddings=64,
        pad_token_id=0, eos_token_id=1, bos_token_id=None, **settings,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def gpt2(seed: int = 0, layers: int = 3) -> PreTrainedModel:
    """Return a random GPT-2: absolute positions, dropout, layer outputs unlike Llama's."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=layers, n_head=4, n_positions=64,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def randomised(model: PreTrainedModel) -> PreTrainedModel:
    """Make all parameters of a model random: initialisations leave biases, norms and gains where errors hide."""
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.data = noise * 0.15 if parameter.ndim > 1 else parameter.data + noise * 0.2
    return model


def composed(
    anchor: PreTrainedModel | None = None, aug: PreTrainedModel | None = None, trained: bool = True, **settings: object
) -> ComposedModelForCausalLM:
    """Return a composed model; `trained` gives its bridges random outputs and ways to read, so that they matter."""
    anchor = anchor if anchor is not None else llama(seed=1)
    aug = aug if aug is not None else llama(seed=2, width=16, heads=2, kv_heads=1)
    model = compose(anchor, aug, **{"every": 1, "share": 1.0, **settings})
    return opened(model) if trained else model


def opened(model: ComposedModelForCausalLM) -> ComposedModelForCausalLM:
    """Give the bridges of a model random outputs and ways to read, so that they matter."""
    torch.manual_seed(3)
    for name, parameter in model.composition_parameters().items():
        torch.nn.init.normal_(parameter, std=0.3 if "output" in name else 0.2)
    for name, buffer in model.bridges.named_buffers():
        torch.nn.init.uniform_(buffer, *((-0.3, 0.3) if "mean" in name else (0.6, 1.4)))
    return model


def checkpointing(model: PreTrainedModel, enabled: bool, settings: dict[str, object] | None = None) -> None:
    """Turn gradient checkpointing on or off, which transformers calls activation checkpointing from 5.24 on."""
    prefix = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if enabled:
        getattr(model, f"{prefix}_checkpointing_enable")(settings)
    else:
        getattr(model, f"{prefix}_checkpointing_disable")()


def example_ids() -> Tensor:
    """Return token ids (3, 9)."""
    return torch.randint(2, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))


def logits(model, ids: Tensor, **arguments) -> Tensor:
    """Return the logits of a model without a graph."""
    with torch.no_grad():
        return model(ids, **arguments).logits


def padded(ids: Tensor, left: int, right: int) -> tuple[Tensor, Tensor]:
    """Return ids with garbage padding and the mask that hides it."""
    wide = torch.full((ids.shape[0], left + ids.shape[1] + right), 17)
    mask = torch.zeros_like(wide)
    wide[:, left : left + ids.shape[1]] = ids
    mask[:, left : left + ids.shape[1]] = 1
    return wide, mask


def with_random_adapters(model: AdaptedModelForCausalLM) -> AdaptedModelForCausalLM:
    """Give adapters random weights, so that they matter."""
    torch.manual_seed(3)
    for parameter in model.trained_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    return model
