"""How augs read a text, anchor token by anchor token, for display; no weights are needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import locate
from calmctl.modeling.bases.sources import base_config, find_tokenizer, load_tokenizer
from calmctl.modeling.composition import check_parts
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.options import AUTO
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.tokenizers.own import OwnTokenizer, stored_tokenizers
from calmctl.modeling.tokenizers.segmentation import Position, Segmenter
from calmctl.modeling.tokenizers.token_bytes import TokenBytes


@dataclass(frozen=True)
class Step:
    """What an aug reads at one anchor token.

    Attributes:
        new: token ids that it reads now, in order.
        replaced: token ids read before that the new ones replace.
        visible: number of aug tokens that the anchor sees from here.
        waiting: first bytes of an incomplete character, which the aug has not read yet.
        is_border: the anchor token is not text; it ends a piece of text.
    """

    new: tuple[int, ...]
    replaced: tuple[int, ...]
    visible: int
    waiting: bytes = b""
    is_border: bool = False


class Spelling:
    """How to show the tokens of a tokenizer: as text, with bytes of partial characters as `\\xe0`, or by name."""

    def __init__(self, tokenizer: Tokenizer | PreTrainedTokenizerBase, known: TokenBytes | None) -> None:
        """Take a tokenizer and the bytes of its tokens; None = unknown, all tokens are shown by name."""
        self._tokenizer, self._known = tokenizer, known

    def of(self, token_id: int) -> str:
        """Return a token's text, or its name where it has none."""
        data = self._known[token_id] if self._known is not None else None
        if data is not None:
            return data.decode(errors="backslashreplace")
        if isinstance(self._tokenizer, Tokenizer):
            return self._tokenizer.id_to_token(token_id) or f"<{token_id}>"
        return str(self._tokenizer.convert_ids_to_tokens(token_id) or f"<{token_id}>")


@dataclass(frozen=True)
class AugReading:
    """How one aug reads a text; `kind` is one of `SEGMENTATIONS`, or empty if it shares the anchor's tokenizer."""

    source: str
    kind: str
    spelling: Spelling
    steps: Sequence[Step]

    @property
    def num_read(self) -> int:
        """Return the number of tokens that the aug is fed with, replaced ones included."""
        return sum(len(step.new) for step in self.steps)

    @property
    def num_replaced(self) -> int:
        """Return how many of them are replaced."""
        return sum(len(step.replaced) for step in self.steps)


@dataclass(frozen=True)
class TextReading:
    """A text in the anchor's tokens, and how each aug reads it."""

    anchor: str
    ids: Sequence[int]
    spelling: Spelling
    augs: Sequence[AugReading]


def reading_of_model(source: str, text: str, trust_remote_code: bool = False) -> TextReading:
    """Return how the augs of a composed model read a text.

    Args:
        source: the model's run, folder or hub id.

    Raises:
        UserError: it is no composed model, or the model or its tokenizer cannot be read.
    """
    how = {"trust_remote_code": trust_remote_code}
    config = base_config(source, **how)
    if not isinstance(config, ComposedConfig):
        raise UserError(f"{source}: a {config.model_type} model, not a composed one; give --anchor MODEL --aug MODEL")
    place, revision = locate(source)
    own = stored_tokenizers(config.segmentations, place, revision=revision)
    kinds = [settings["kind"] if settings is not None else "" for settings in config.segmentations]
    tokenizer = find_tokenizer(source, **how)
    if tokenizer is None:  # the model was saved without one
        stored = next((each.anchor for each in own if each is not None), None)
        if stored is None:
            raise UserError(f"{source}: there is no tokenizer, and its augs take the anchor's tokens as they are")
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(stored.json))
    names = [_base_name(base, index, place) for index, base in enumerate(config.bases)]
    return _text_reading(tokenizer, text, names, own, kinds)


def reading_of_parts(
    anchor: str,
    augs: Sequence[str],
    text: str,
    segmentation: str = AUTO,
    markers: Mapping[str, str] | None = None,
    trust_remote_code: bool = False,
) -> TextReading:
    """Return how augs would read a text, composed with an anchor.

    Args:
        anchor, augs: runs, folders or hub ids.
        segmentation, markers: see `compose`.

    Raises:
        UserError: they cannot be composed.
    """
    how = {"trust_remote_code": trust_remote_code}
    parts = check_parts(anchor, augs, "all", how, segmentation, markers)
    tokenizer = parts.tokenizer or load_tokenizer(anchor, **how)  # raises if there is none
    return _text_reading(tokenizer, text, [anchor, *augs], parts.own, parts.kinds)


def steps_of(segmenter: Segmenter | None, ids: Sequence[int]) -> list[Step]:
    """Return what an aug reads at each anchor token; without a segmenter it reads the anchor's tokens."""
    if segmenter is None:
        return [Step((token_id,), (), index + 1) for index, token_id in enumerate(ids)]
    history: list[Position] = []
    found, _ = segmenter.read(ids, history)
    new: list[list[int]] = [[] for _ in ids]
    replaced: list[list[int]] = [[] for _ in ids]
    for token_id, born, died in zip(found.ids, found.born, found.died, strict=True):
        new[born].append(token_id)
        if died < len(ids):
            replaced[died].append(token_id)
    steps, visible = [], 0
    for index, token_id in enumerate(ids):
        visible += len(new[index]) - len(replaced[index])
        waiting, is_border = history[index].state.undecoded, segmenter.is_border(token_id)
        steps.append(Step(tuple(new[index]), tuple(replaced[index]), visible, waiting, is_border))
    return steps


def _text_reading(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    names: Sequence[str],
    own: Sequence[OwnTokenizer | None],
    kinds: Sequence[str],
) -> TextReading:
    (ids,) = prompt_ids(tokenizer, [text])
    segmenters = [each.segmenter(kind) if each is not None else None for each, kind in zip(own, kinds, strict=True)]
    known = next((each.anchor for each in segmenters if each is not None), None)
    ours, augs = Spelling(tokenizer, known or _token_bytes(tokenizer)), []
    for name, each, kind, segmenter in zip(names[1:], own, kinds, segmenters, strict=True):
        spelling = ours
        if each is not None:
            spelling = Spelling(each.aug.tokenizer, each.aug.token_bytes)
        augs.append(AugReading(name, kind, spelling, steps_of(segmenter, ids)))
    return TextReading(names[0], ids, ours, augs)


def _token_bytes(tokenizer: PreTrainedTokenizerBase) -> TokenBytes | None:
    try:
        return TokenBytes.of(tokenizer, "a model")
    except UserError:
        return None


def _base_name(base: Mapping[str, Any], index: int, place: str) -> str:
    """Return the source that a checkpoint at `place` records for a base, or else its role."""
    if base.get("source"):
        return str(base["source"])
    if (inside := base.get("relative_source") or base.get("subfolder")) and Path(place).is_dir():
        return str((Path(place) / inside).resolve())
    return inside or (f"aug {index - 1}" if index else "anchor")
