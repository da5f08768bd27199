"""Models that users give as objects: which of them can be a base."""

from typing import Any

from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.bases.adapters import has_adapters
from calmctl.modeling.configuration import PartsConfig


def checked_object(model: Any) -> PreTrainedModel:
    """Return a given model if it is a plain model of transformers.

    Raises:
        UserError: it is something else, has adapters of peft, or is recorded as quantised as in its GGUF file.
    """
    name = type(model).__name__
    if has_adapters(model) and not isinstance(getattr(model, "config", None), PartsConfig):
        raise UserError(
            f"a {name} with adapters of peft in it cannot be a base: merge them first, `model = "
            "peft_model.merge_and_unload()`, or give the adapter's folder instead of the model"
        )
    if not isinstance(model, PreTrainedModel):
        raise UserError(f"a {name} cannot be a base; give a model of transformers, a path or a hub id")
    if isinstance(getattr(model.config, "quantization_config", None), GgufConfig):
        raise UserError(
            f"a {name} of a GGUF file whose configuration calls it quantised cannot be a base: give the file's path "
            "instead of the model, or load it with quantization_config=GgufConfig(dequantize=True)"
        )
    return model


def check_reloadable(model: PreTrainedModel, role: str) -> None:
    """Refuse a model whose class `AutoModelForCausalLM` would not restore from its saved configuration.

    Raises:
        UserError: it is a wrapper (a multimodal model, one with a value head).
    """
    config, mapping, name = type(model.config), AutoModelForCausalLM._model_mapping, type(model).__name__
    found = mapping[config] if config in mapping else ()
    names = [known.__name__ for known in (found if isinstance(found, tuple) else (found,)) if known is not None]
    if name not in names and not hasattr(model.config, "auto_map"):
        instead = f"a {names[0]}" if names else "nothing"
        raise UserError(
            f"the {role}, a {name}, cannot be loaded again by AutoModelForCausalLM, which makes {instead} of a "
            f"{config.__name__}; compose its text decoder with its LM head, as a causal language model"
        )
