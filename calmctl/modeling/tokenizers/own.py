"""The tokenizer of an aug that does not share the anchor's: detected by `compose`, stored in checkpoints."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.options import AUTO
from calmctl.modeling.own_masks import shortest_reach, why_no_gaps, why_no_own_masks
from calmctl.modeling.prompt_ids import ids_around
from calmctl.modeling.tokenizers.cutting import Cutter
from calmctl.modeling.tokenizers.same_ids import PARTS, differences, num_token_ids
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.modeling.tokenizers.token_bytes import TokenBytes
from data_builders.files import write_text

ANCHOR_FILE, AUG_FILE = "anchor_tokenizer.json", "aug_{}_tokenizer.json"


@dataclass(frozen=True)
class OwnTokenizer:
    """The tokenizers of an aug that does not share the anchor's, and of its anchor.

    Attributes:
        anchor, aug: tokenizers as JSON of the `tokenizers` library.
        opening: ids that the aug's tokenizer puts before a text.
        special: ids of the anchor that are not text, including those that only its settings call special.
        markers: ids of special tokens of the anchor -> ids that the aug reads in their place.
        num_ids: number of token ids that the aug's tokenizer can produce.
        names: of anchor and aug, for errors.
        difference: the first difference between the two, in words.
        warnings: about this pair, for users.
        is_given: both were given to `compose`, so those beside the bases may be others.
    """

    anchor: str
    aug: str
    opening: tuple[int, ...]
    special: tuple[int, ...]
    markers: Mapping[int, tuple[int, ...]]
    num_ids: int
    names: tuple[str, str] = ("the anchor", "the aug")
    difference: str = ""
    warnings: tuple[str, ...] = ()
    is_given: bool = False

    def settings(self, kind: str) -> dict[str, Any]:
        """Return the aug's entry in `ComposedConfig.segmentations`."""
        return {
            "kind": kind,
            "opening": list(self.opening),
            "special": list(self.special),
            "markers": {str(token): list(ids) for token, ids in self.markers.items()},
            "anchor_sha256": tokenizer_sha256(self.anchor),
            "aug_sha256": tokenizer_sha256(self.aug),
            "is_given": self.is_given,
        }

    def marker_names(self) -> list[tuple[str, str]]:
        """Return special tokens of the anchor and those that the aug reads in their place, as text."""
        if not self.markers:
            return []
        ours, theirs = (Tokenizer.from_str(each) for each in (self.anchor, self.aug))
        return [
            (str(ours.id_to_token(token_id)), " ".join(str(theirs.id_to_token(each)) for each in ids))
            for token_id, ids in self.markers.items()
        ]

    def segmenter(self, kind: str) -> Segmenter:
        """Return the segmenter that maps the anchor's tokens to the aug's."""
        sources = [tokenizer_sha256(each) for each in (self.anchor, self.aug)]
        anchor, cutter = _token_bytes(self.anchor, self.names[0]), _cutter(self.aug)
        return Segmenter(anchor, cutter, self.opening, kind, self.markers, self.special, sources)

    def aug_bytes(self) -> TokenBytes:
        """Return the bytes of the aug's tokens."""
        return _token_bytes(self.aug, self.names[1])


def own_tokenizer(
    anchor: PreTrainedTokenizerBase, aug: PreTrainedTokenizerBase, markers: Mapping[str, str] | None = None
) -> OwnTokenizer | None:
    """Return the `OwnTokenizer` of an aug with this tokenizer; None if it shares the anchor's.

    Args:
        markers: special tokens of the anchor -> those of the aug, as text.

    Raises:
        UserError: a tokenizer does not reproduce texts (see `TokenBytes`), or has no such marker.
    """
    difference = next(differences(anchor, aug), None)
    if difference is None:
        return None
    names = f"the anchor ({anchor.name_or_path})", f"the aug ({aug.name_or_path})"
    try:
        stored = [_as_json(each, name) for each, name in zip((anchor, aug), names, strict=True)]
        warnings = [_token_bytes(each, name).warning for each, name in zip(stored, names, strict=True)]
    except UserError as error:
        raise UserError(f"anchor and aug have different tokenizers ({difference}), and {error}") from error
    found = {
        _marker(anchor, ours, names[0]): (_marker(aug, theirs, names[1]),) for ours, theirs in (markers or {}).items()
    }
    opening, _ = ids_around(aug)
    table = _token_bytes(stored[0], names[0])
    if any(table[token_id] is not None for token_id in anchor.all_special_ids):
        table = TokenBytes.of(anchor, names[0])  # knows all special ids; a word that pads ("!") is still text
    return OwnTokenizer(
        stored[0],
        stored[1],
        tuple(opening),
        tuple(sorted(token_id for token_id in anchor.all_special_ids if table[token_id] is None)),
        found,
        num_token_ids(aug),
        names,
        difference,
        tuple(filter(None, warnings)),
    )


# Large vocabularies take seconds each, and plans, models and segmenters need the same ones.
@lru_cache(maxsize=8)
def _token_bytes(tokenizer: str, name: str) -> TokenBytes:
    return TokenBytes.of(Tokenizer.from_str(tokenizer), name)


@lru_cache(maxsize=8)
def _cutter(tokenizer: str) -> Cutter:
    return Cutter(tokenizer)


def _as_json(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """Return a tokenizer as JSON; refuse one without a backend, as `TokenBytes` does."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        TokenBytes.of(tokenizer, name)
    return tokenizer.backend_tokenizer.to_str()


def _marker(tokenizer: PreTrainedTokenizerBase, token: str, name: str) -> int:
    """Return the id of a special token."""
    known = tokenizer.get_added_vocab()
    if token not in known:
        shown = ", ".join(repr(each) for each in list(known)[:8])
        raise UserError(f"markers: the tokenizer of {name} has no special token {token!r}; it has {shown or 'none'}")
    return known[token]


def chosen_kind(kind: str, aug: PreTrainedModel, own: OwnTokenizer) -> str:
    """Return the segmentation of an aug; "auto" is "own" if the aug takes masks token by token, else "chunks".

    Args:
        kind: one of `SEGMENTATION_SETTINGS`.
        aug: with or without weights.

    Raises:
        UserError: the aug does not support this segmentation, or has fewer token ids than its tokenizer.
    """
    known = layers.text_config(aug.config).vocab_size
    if own.num_ids > known:
        raise UserError(f"the aug has {known} token ids, and its own tokenizer {own.num_ids}; use the aug's tokenizer")
    if gaps := why_no_gaps(aug):
        raise UserError(
            f"the aug, a {type(aug).__name__}, has a tokenizer of its own, and {gaps}; use another aug, or one with "
            "the anchor's tokenizer"
        )
    reason = why_no_own_masks(aug)
    if reason and kind == "own":
        raise UserError(
            f"segmentation=own: the aug, a {type(aug).__name__}, cannot be told what replaced tokens may "
            f"see: {reason}; use segmentation=chunks"
        )
    if reason and shortest_reach(aug) is not None:
        raise UserError(
            f"the aug, a {type(aug).__name__}, has a tokenizer of its own and a window over its tokens, and {reason}; "
            "use another aug, or one with the anchor's tokenizer"
        )
    return kind if kind != AUTO else "chunks" if reason else "own"


@lru_cache(maxsize=8)
def tokenizer_sha256(tokenizer: str) -> str:
    """Return a hash of those parts of a tokenizer, given as JSON, that decide which ids a text becomes."""
    parts = {name: value for name, value in json.loads(tokenizer).items() if name in PARTS}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def store_tokenizers(segmentations: Sequence[OwnTokenizer | None], folder: Path) -> None:
    """Write the tokenizers that segmenters need into a checkpoint."""
    known = {index: own for index, own in enumerate(segmentations) if own is not None}
    for own in list(known.values())[:1]:  # all have the same anchor
        write_text(folder / ANCHOR_FILE, own.anchor)
    for index, own in known.items():
        write_text(folder / AUG_FILE.format(index), own.aug)


def stored_tokenizer(settings: Mapping[str, Any], index: int, location: str | Path, **hub: Any) -> OwnTokenizer:
    """Load the tokenizers of an aug and its anchor from a checkpoint.

    Args:
        settings: recorded in the configuration (see `OwnTokenizer.settings`).
        hub: hub arguments of `from_pretrained`, `revision` included.

    Raises:
        UserError: a file is missing or damaged, or is not the recorded tokenizer.
    """
    anchor, aug = (_read(name, location, hub) for name in (ANCHOR_FILE, AUG_FILE.format(index)))
    for role, found in (("anchor", anchor), ("aug", aug)):
        if tokenizer_sha256(found) != settings[f"{role}_sha256"]:
            name = ANCHOR_FILE if role == "anchor" else AUG_FILE.format(index)
            raise UserError(f"{location}: {name} is not the tokenizer that this model was trained with")
    markers = {int(token): tuple(ids) for token, ids in settings["markers"].items()}
    is_given = bool(settings.get("is_given"))
    return OwnTokenizer(
        anchor, aug, tuple(settings["opening"]), tuple(settings["special"]), markers, 0, is_given=is_given
    )


def _read(name: str, location: str | Path, hub: Mapping[str, Any]) -> str:
    path = Path(location) / name
    try:
        if not Path(location).is_dir():
            path = Path(str(cached_file(str(location), name, **hub)))
        text = path.read_text(encoding="utf-8")
        json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the tokenizer cannot be read ({str(error).splitlines()[0]})") from error
    return text


def check_unchanged(own: OwnTokenizer, role: str, found: PreTrainedTokenizerBase) -> None:
    """Refuse a base whose tokenizer is not the one that the model was trained with.

    Raises:
        UserError: it is another one, or has no backend of the `tokenizers` library.
    """
    stored = own.anchor if role == "anchor" else own.aug
    backend = getattr(found, "backend_tokenizer", None)
    here = tokenizer_sha256(backend.to_str()) if backend is not None else ""
    # As it was stored, or as this version of the library writes it.
    if here not in (tokenizer_sha256(stored), tokenizer_sha256(Tokenizer.from_str(stored).to_str())):
        raise UserError(
            f"the {role}'s tokenizer ({found.name_or_path}) is not the one that this model was trained with; use the "
            "base as it was, or allow_different_base (--allow-different-base)"
        )
