"""Checks of loaded weights: none missing, unused or of another shape (by transformers' report), none not finite."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling import layers

# Buffers that older versions of libraries stored, and that models now compute themselves.
DERIVED = re.compile(r"inv_freq$|\.(attn|attention)(\.attention)?\.(masked_)?bias$|(^|\.)version$")
# Multi-token prediction layers, which causal language models of transformers do not have.
AHEAD = re.compile(r"(^|\.)mtp\b|(^|\.)mtp_")
LAYER = re.compile(r"\.layers\.(\d+)\.")
# Weights of multimodal models, by name: those of the text decoder, and those of vision and audio.
TEXT = re.compile(r"language_model|text_model|lm_head|(^|\.)(layers|embed_tokens|norm)\b")
SENSES = re.compile(r"vision|visual|audio|image|projector")
SHOWN = 3


@contextmanager
def without_report() -> Iterator[None]:
    """Keep transformers from logging its loading report; `check_report` makes one line of it."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def check_report(
    source: str, model: PreTrainedModel, report: Mapping[str, Any], whole: Callable[[], PreTrainedConfig]
) -> None:
    """Refuse weights that were not in the files, were not used, or have other shapes.

    Args:
        report: what `from_pretrained` returned beside the model.
        whole: returns the configuration in the files, which may describe more than the model (a multimodal one).

    Raises:
        UserError: one line that counts them and names the first.
    """
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    others = sorted(report["mismatched_keys"])
    unexpected = [key for key in unexpected if not _is_left_out(key, model)]
    if unexpected and type(whole()) is not type(model.config):
        # Only the text decoder of a multimodal model was loaded.
        unexpected = [key for key in unexpected if _belongs_to_text(key)]
    parts = [_listed("missing", missing), _listed("not in the model", unexpected)]
    shapes = [f"{key} {tuple(found)} instead of {tuple(wanted)}" for key, found, wanted in others]
    parts.append(_listed("of another shape", shapes))
    if any(parts):
        told = ", ".join(part for part in parts if part)
        hint = _hint(model, missing, unexpected, others)
        name = type(model).__name__
        raise UserError(f"{source}: its weights are not those of the {name} in config.json: {told}{hint}")


def _listed(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{len(keys)} {what} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"


def _hint(model: PreTrainedModel, missing: list[str], unexpected: list[str], others: list[Any]) -> str:
    """Return advice if the names suggest any."""
    if missing and unexpected:
        # All names in the files may have the same extra prefix.
        prefixes = {key.removesuffix(name) for key in unexpected for name in missing if key.endswith(f".{name}")}
        if len(prefixes) == 1:
            return f"; take {prefixes.pop()!r} off the names"
    saved_as = (getattr(model.config, "architectures", None) or [""])[0]
    if saved_as and saved_as != type(model).__name__:
        return f"; it was saved from a {saved_as}"
    count = getattr(layers.text_config(model.config), "num_hidden_layers", None)
    if any(count is not None and int(found[1]) >= count for key in unexpected if (found := LAYER.search(key))):
        return f"; config.json says num_hidden_layers={count}"
    return "; config.json and weights must belong together" if others else ""


def _is_left_out(key: str, model: PreTrainedModel) -> bool:
    """Tell whether a model needs no weight of this name, though files of its kind hold it.

    The list in the model's class (`_keys_to_ignore_on_load_unexpected`) is not in the report.
    """
    if DERIVED.search(key) or AHEAD.search(key):
        return True
    config = layers.text_config(model.config)
    ahead, first = getattr(config, "num_nextn_predict_layers", None) or 0, getattr(config, "num_hidden_layers", 0)
    if (found := LAYER.search(key)) and first <= int(found[1]) < first + ahead:
        return True
    if not getattr(model.config, "quantization_config", None):
        return False
    # How a quantised matrix is packed is up to the quantiser; its module has to exist.
    if key.endswith(".bias"):
        return False
    names = {name for name, _ in model.named_modules()}
    return key.rpartition(".")[0] in names or key.rpartition(".")[0].rpartition(".")[0] in names


def _belongs_to_text(key: str) -> bool:
    return bool(TEXT.search(key)) and not SENSES.search(key)


def check_numbers(source: str, model: PreTrainedModel) -> None:
    """Refuse weights that are not finite; offloaded weights are not checked.

    Raises:
        UserError: one line that counts them and names the first.
    """
    found = [name for name, parameter in model.named_parameters() if not _is_finite(parameter)]
    if found:
        raise UserError(f"{source}: {_listed('weights are not finite numbers', found)}; the file is damaged")


def _is_finite(tensor: Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point() or tensor.element_size() < 2 or type(tensor.data) is not Tensor:
        return True
    with torch.no_grad():
        # The sum needs no memory, and is finite only if all terms are; it may overflow, so check again.
        return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())
