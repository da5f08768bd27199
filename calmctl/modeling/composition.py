"""`compose`: connect two or more models by untrained bridges into one composed model."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bases.given_models import check_reloadable, checked_object
from calmctl.modeling.bases.locating import place_of
from calmctl.modeling.bases.sources import (
    SOURCE_ARGUMENTS,
    base_config,
    find_tokenizer,
    load_base,
    untrained,
    without_weights,
)
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.connections import resolve_connections
from calmctl.modeling.options import AUG_READS, AUTO, SEGMENTATION_SETTINGS, BridgeConfig
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.tokenizers.own import OwnTokenizer, chosen_kind, own_tokenizer
from calmctl.modeling.tokenizers.same_ids import num_token_ids
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.processes.ranks import current_ranks

_LOGGER = logging.getLogger(__name__)


def compose(
    anchor: PreTrainedModel | str | Path,
    aug: PreTrainedModel | str | Path | Sequence[PreTrainedModel | str | Path],
    connections: Sequence[Any] | None = None,
    *,
    every: int = 4,
    num: int | None = None,
    bridge: BridgeConfig | None = None,
    aug_reads: str = "all",
    aug_seed: int | None = None,
    segmentation: str = AUTO,
    markers: Mapping[str, str] | None = None,
    tokenizers: Sequence[PreTrainedTokenizerBase | None] | None = None,
    parts: "CheckedParts | None" = None,
    **arguments: Any,
) -> ComposedModelForCausalLM:
    """Freeze an anchor and one or more augs and connect them by untrained bridges.

    Args:
        anchor, aug: models, paths or hub ids (`id@revision` works); `aug` may be a list.
        connections: [[aug_layer, anchor_layer], ...] (with several augs: one such list each); None = the paper's rule:
            every `every`-th layer of the aug, or `num` layers, evenly spaced over the anchor.
        bridge: form of the bridges.
        aug_reads: "all" tokens, or the "prompt" only (the paper's ablation "m_A as an encoder").
        aug_seed: give the augs random weights drawn with this seed (the paper's ablation "random m_A").
        segmentation: how augs with their own tokenizer tokenise: "own" tokenises the whole text so far; "chunks"
            tokenises every anchor token's text alone (for augs that take no mask per token); "auto" is "own" where it
            works.
        markers: special tokens of the anchor (chat markers, ends of text) -> those that such augs read in their place.
        tokenizers: the anchor's and each aug's, None for a model without one; default: those beside the models.
        parts: what `check_parts` returned for these models and settings, if it has been called already.
        arguments: fields of `BridgeConfig` (`num_heads=4`) override those of `bridge`; all others are passed to
            `from_pretrained` of bases given as paths or ids (dtype, device_map, quantization_config, trust_remote_code,
            ...). Bridges stay in a floating-point type even if the bases are quantised.

    Raises:
        UserError: connections out of range, heads that do not divide the anchor's width, a base that is itself composed
            or no decoder-only causal LM, tokenizers that differ and do not reproduce texts byte by byte, or an aug that
            shares the anchor's tokenizer but lacks some of its token ids. Whatever can be checked without weights is
            checked before any are loaded.
        TypeError: load arguments, but all models are loaded already.
    """
    augs = [aug] if isinstance(aug, nn.Module | str | Path) else list(aug)
    of_bridge = {field.name for field in fields(BridgeConfig)}
    bridge = replace(bridge or BridgeConfig(), **{name: arguments[name] for name in of_bridge & arguments.keys()})
    load_arguments = {name: value for name, value in arguments.items() if name not in of_bridge}
    if load_arguments and all(isinstance(model, PreTrainedModel) for model in (anchor, *augs)):
        raise TypeError(f"compose does not take {', '.join(load_arguments)}: the models are loaded already")
    reach = {name: load_arguments[name] for name in SOURCE_ARGUMENTS if name in load_arguments}
    attention = load_arguments.get("attn_implementation") or ""
    parts = parts or check_parts(anchor, augs, aug_reads, reach, segmentation, markers, tokenizers, attention)
    num_anchor_layers, *nums_aug_layers = (layers.num_layers(model.config) for model in parts.shapes)
    resolved = resolve_connections(connections, nums_aug_layers, num_anchor_layers, every, num)
    anchor_model = load_base(anchor, **load_arguments)
    if aug_seed is None:
        aug_models = [load_base(model, **load_arguments) for model in augs]
    else:
        aug_models = [untrained(shape.config, aug_seed + index) for index, shape in enumerate(parts.shapes[1:])]
    # Choose again: the attention implementation of the loaded models decides which masks they take.
    kinds = _kinds(segmentation, aug_models, parts.own)
    for warning in parts.warnings() if current_ranks().is_first else ():
        _LOGGER.warning("%s", warning)
    config = ComposedConfig(
        anchor=anchor_model.config.to_dict(),
        augs=[model.config.to_dict() for model in aug_models],
        connections=[[(pair.aug_layer, pair.anchor_layer) for pair in pairs] for pairs in resolved],
        bridge=asdict(bridge),
        aug_reads=aug_reads,
        aug_seed=aug_seed,
        segmentations=[
            own.settings(kind) if own is not None else None for own, kind in zip(parts.own, kinds, strict=True)
        ],
    )
    return ComposedModelForCausalLM(config, anchor_model, aug_models, parts.own)


@dataclass(frozen=True)
class CheckedParts:
    """The models and tokenizers to compose, checked before weights are loaded.

    Attributes:
        shapes: the bases, the anchor first; without weights, unless they were given as models.
        own: per aug, its own tokenizer; None = it shares the anchor's.
        kinds: per aug, its segmentation (see `chosen_kind`); empty = it shares the anchor's tokenizer.
        tokenizer: the anchor's, or None.
    """

    shapes: Sequence[PreTrainedModel]
    own: Sequence[OwnTokenizer | None]
    kinds: Sequence[str]
    tokenizer: PreTrainedTokenizerBase | None = None

    def warnings(self) -> list[str]:
        """Return the distinct warnings about the tokenizers."""
        return list(dict.fromkeys(warning for own in self.own if own is not None for warning in own.warnings))

    def segmenters(self) -> list[Segmenter | None]:
        """Return the segmenter of each aug; None = it shares the anchor's tokenizer."""
        return [
            own.segmenter(kind) if own is not None else None for own, kind in zip(self.own, self.kinds, strict=True)
        ]


def check_parts(
    anchor: PreTrainedModel | str | Path,
    augs: Sequence[PreTrainedModel | str | Path],
    aug_reads: str,
    reach: Mapping[str, Any],
    segmentation: str = AUTO,
    markers: Mapping[str, str] | None = None,
    tokenizers: Sequence[PreTrainedTokenizerBase | None] | None = None,
    attention: str = "",
) -> CheckedParts:
    """Check everything that needs no weights; return the bases (unloaded, unless given as models) and tokenizers.

    Args:
        reach: hub arguments of `from_pretrained` (`SOURCE_ARGUMENTS`).
        attention: attention implementation that the augs will be loaded with; empty = as configured.

    Raises:
        UserError: see `compose`.
    """
    if not augs:
        raise UserError("aug: no model is given; compose needs at least one")
    if aug_reads not in AUG_READS:
        raise UserError(f"aug_reads={aug_reads!r} is not one of {', '.join(AUG_READS)}")
    if segmentation not in SEGMENTATION_SETTINGS:
        raise UserError(f"segmentation={segmentation!r} is not one of {', '.join(SEGMENTATION_SETTINGS)}")
    if tokenizers is not None and len(tokenizers) != 1 + len(augs):
        raise UserError(f"tokenizers: {len(tokenizers)} are given for an anchor and {len(augs)} augs; give one of each")
    shapes = [
        without_weights(base_config(str(model), **reach)) if isinstance(model, str | Path) else checked_object(model)
        for model in (anchor, *augs)
    ]
    ours, *theirs = tokenizers if tokenizers is not None else (tokenizer_of(each, **reach) for each in (anchor, *augs))
    own: list[OwnTokenizer | None] = []
    for each in theirs:
        known = next((other.anchor for other in own if other is not None), None)
        own.append(own_tokenizer(ours, each, markers, known) if ours is not None and each is not None else None)
    if tokenizers is not None:
        own = [replace(each, is_given=True) if each is not None else None for each in own]
    if markers and not any(own):
        raise UserError("markers: no aug has a tokenizer of its own; leave them out, it reads the anchor's markers")
    for index, (model, each) in enumerate(zip(augs, theirs, strict=True)):
        if ours is not None and each is None and tokenizers is None and (name := _name_of(model)):
            _LOGGER.warning(
                "aug %d (%s): its tokenizer is not known here, so it is taken to be the anchor's; if it is not, put it "
                "beside the model, or give compose(tokenizers=[...])", index, name,
            )  # fmt: skip
    check_bases(
        shapes[0], shapes[1:], num_token_ids(ours) if ours is not None else None, [each is None for each in own]
    )
    for shape in shapes[1:] if attention else ():
        layers.text_config(shape.config)._attn_implementation = attention
    return CheckedParts(shapes, own, _kinds(segmentation, shapes[1:], own), ours)


def tokenizer_of(model: PreTrainedModel | str | Path, **reach: Any) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer beside a model; None if there is none, or if a model object does not record its source.

    Args:
        reach: hub arguments of `from_pretrained`.

    Raises:
        UserError: the tokenizer cannot be loaded (of a model object: from its local folder).
    """
    if not isinstance(model, PreTrainedModel):
        return find_tokenizer(str(model), **reach)
    name, commit = _name_of(model), getattr(model.config, "_commit_hash", None)
    if not name:
        return None
    if place_of(name) is not None:
        return find_tokenizer(name, **reach)
    try:  # the revision that the model was loaded from
        return find_tokenizer(f"{name}@{commit}" if commit else name, **reach)
    except UserError:
        return None


def _name_of(model: PreTrainedModel | str | Path) -> str:
    """Return the path or hub id that a model was loaded from; empty if it was built in memory."""
    return model.config._name_or_path or "" if isinstance(model, PreTrainedModel) else str(model)


def _kinds(segmentation: str, augs: Sequence[PreTrainedModel], own: Sequence[OwnTokenizer | None]) -> list[str]:
    pairs = zip(augs, own, strict=True)
    return [chosen_kind(segmentation, aug, each) if each is not None else "" for aug, each in pairs]


def check_bases(
    anchor: PreTrainedModel,
    augs: Sequence[PreTrainedModel],
    num_token_ids: int | None,
    is_shared: Sequence[bool] | None = None,
) -> None:
    """Check the models themselves, with or without weights.

    Args:
        num_token_ids: number of ids that the anchor's tokenizer can produce; None = unknown, use its vocabulary size.
        is_shared: per aug, whether it shares the anchor's tokenizer; None = all of them do.

    Raises:
        UserError: see `compose`.
    """
    for role, model in (("anchor", anchor), *(("aug", aug) for aug in augs)):
        if isinstance(model, ComposedModelForCausalLM):
            raise UserError(f"the {role} is itself a composed model; compose plain models, several augs at once")
        if isinstance(model, PartsModel):
            raise UserError(f"the {role} is a frozen model with adapters; compose plain models (LoRA can be merged)")
        layers.check_base(model, role)
        check_reloadable(model, role)
    # A model's vocabulary may be padded beyond what its tokenizer can produce.
    needed = num_token_ids or layers.text_config(anchor.config).vocab_size
    owner = "the anchor's tokenizer" if num_token_ids else "the anchor"
    for aug, shared in zip(augs, is_shared or [True] * len(augs), strict=True):
        known = layers.text_config(aug.config).vocab_size
        if shared and known < needed:
            raise UserError(
                f"the aug has {known} token ids, {owner} {needed}; the aug reads the anchor's tokens, so it needs "
                "the same tokenizer"
            )
