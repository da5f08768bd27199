"""The tokenizer of an aug that does not share the anchor's: detected by `compose`, stored in checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.options import AUTO
from calmctl.modeling.own_masks import shortest_reach, why_no_gaps, why_no_own_masks
from calmctl.modeling.prompt_ids import ids_around
from calmctl.modeling.tokenizers.backend import Backend, tokenizer_sha256
from calmctl.modeling.tokenizers.same_ids import differences
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.modeling.tokenizers.token_bytes import TokenBytes
from calmctl.processes.garbage import without_collection
from data_builders.files import write_text

ANCHOR_FILE, AUG_FILE = "anchor_tokenizer.json", "aug_{}_tokenizer.json"


@dataclass(frozen=True)
class OwnTokenizer:
    """The tokenizers of an aug that does not share the anchor's, and of its anchor.

    Attributes:
        anchor, aug: tokenizers of the `tokenizers` library.
        opening: ids that the aug's tokenizer puts before a text.
        special: ids of the anchor that are not text, including those that only its settings call special.
        markers: ids of special tokens of the anchor -> ids that the aug reads in their place.
        num_ids: number of token ids that the aug's tokenizer can produce.
        difference: the first difference between the two, in words.
        warnings: about this pair, for users.
        is_given: both were given to `compose`, so those beside the bases may be others.
    """

    anchor: Backend
    aug: Backend
    opening: tuple[int, ...]
    special: tuple[int, ...]
    markers: Mapping[int, tuple[int, ...]]
    num_ids: int
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
            "anchor_sha256": self.anchor.sha256,
            "aug_sha256": self.aug.sha256,
            "is_given": self.is_given,
        }

    def marker_names(self) -> list[tuple[str, str]]:
        """Return special tokens of the anchor and those that the aug reads in their place, as text."""
        if not self.markers:
            return []
        ours, theirs = self.anchor.tokenizer, self.aug.tokenizer
        return [
            (str(ours.id_to_token(token_id)), " ".join(str(theirs.id_to_token(each)) for each in ids))
            for token_id, ids in self.markers.items()
        ]

    @without_collection()
    def segmenter(self, kind: str) -> Segmenter:
        """Return the segmenter that maps the anchor's tokens to the aug's."""
        sources = (self.anchor, self.aug)
        return Segmenter(
            self.anchor.token_bytes, self.aug.cutter, self.opening, kind, self.markers, self.special, sources
        )


@without_collection()
def own_tokenizer(
    anchor: PreTrainedTokenizerBase,
    aug: PreTrainedTokenizerBase,
    markers: Mapping[str, str] | None = None,
    known: Backend | None = None,
) -> OwnTokenizer | None:
    """Return the `OwnTokenizer` of an aug with this tokenizer; None if it shares the anchor's.

    Args:
        markers: special tokens of the anchor -> those of the aug, as text.
        known: the anchor's, from another aug's `OwnTokenizer`, so that it is not taken apart again.

    Raises:
        UserError: a tokenizer does not reproduce texts (see `TokenBytes`), or has no such marker.
    """
    difference = next(differences(anchor, aug), None)
    if difference is None:
        return None
    names = f"the anchor ({anchor.name_or_path})", f"the aug ({aug.name_or_path})"
    try:
        backends = [known or Backend.of(anchor, names[0]), Backend.of(aug, names[1])]
        warnings = [backend.token_bytes.warning for backend in backends]
    except UserError as error:
        raise UserError(f"anchor and aug have different tokenizers ({difference}), and {error}") from error
    found = {
        _marker(anchor, ours, names[0]): (_marker(aug, theirs, names[1]),) for ours, theirs in (markers or {}).items()
    }
    opening, _ = ids_around(aug)
    table = backends[0].token_bytes
    if any(table[token_id] is not None for token_id in anchor.all_special_ids):
        table = TokenBytes.of(anchor, names[0])  # knows all special ids; a word that pads ("!") is still text
    return OwnTokenizer(
        backends[0],
        backends[1],
        tuple(opening),
        tuple(sorted(token_id for token_id in anchor.all_special_ids if table[token_id] is None)),
        found,
        len(backends[1].token_bytes),
        difference,
        tuple(filter(None, warnings)),
    )


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


def store_tokenizers(segmentations: Sequence[OwnTokenizer | None], folder: Path) -> None:
    """Write the tokenizers that segmenters need into a checkpoint."""
    known = {index: own for index, own in enumerate(segmentations) if own is not None}
    for own in list(known.values())[:1]:  # all have the same anchor
        write_text(folder / ANCHOR_FILE, own.anchor.json)
    for index, own in known.items():
        write_text(folder / AUG_FILE.format(index), own.aug.json)


def stored_tokenizers(
    segmentations: Sequence[Mapping[str, Any] | None], location: str | Path, **hub: Any
) -> list[OwnTokenizer | None]:
    """Load the tokenizers of augs and their anchor from a checkpoint; None = an aug shares the anchor's.

    Args:
        segmentations: recorded in the configuration (see `OwnTokenizer.settings`).
        hub: hub arguments of `from_pretrained`, `revision` included.

    Raises:
        UserError: a file is missing or damaged, or is not the recorded tokenizer.
    """
    found: list[OwnTokenizer | None] = []
    for index, settings in enumerate(segmentations):
        if settings is None:
            found.append(None)
            continue
        file = AUG_FILE.format(index)
        anchor = next((own.anchor for own in found if own is not None), None)  # all augs have the same
        anchor = anchor or _read(ANCHOR_FILE, location, hub, "the anchor")
        aug = _read(file, location, hub, "the aug")
        for name, backend, sha256 in (
            (ANCHOR_FILE, anchor, settings["anchor_sha256"]),
            (file, aug, settings["aug_sha256"]),
        ):
            if backend.sha256 != sha256:
                raise UserError(f"{location}: {name} is not the tokenizer that this model was trained with")
        markers = {int(token): tuple(ids) for token, ids in settings["markers"].items()}
        opening, special, is_given = settings["opening"], settings["special"], bool(settings.get("is_given"))
        found.append(OwnTokenizer(anchor, aug, tuple(opening), tuple(special), markers, 0, is_given=is_given))
    return found


def _read(name: str, location: str | Path, hub: Mapping[str, Any], whose: str) -> Backend:
    path = Path(location) / name
    try:
        if not Path(location).is_dir():
            path = Path(str(cached_file(str(location), name, **hub)))
        return Backend.read(path.read_text(encoding="utf-8"), whose)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the tokenizer cannot be read ({str(error).splitlines()[0]})") from error


def check_unchanged(own: OwnTokenizer, role: str, found: PreTrainedTokenizerBase) -> None:
    """Refuse a base whose tokenizer is not the one that the model was trained with.

    Raises:
        UserError: it is another one, or has no backend of the `tokenizers` library.
    """
    stored = own.anchor if role == "anchor" else own.aug
    backend = getattr(found, "backend_tokenizer", None)
    here = tokenizer_sha256(backend.to_str()) if backend is not None else ""
    # As it was stored, or as this version of the library writes it.
    if here != stored.sha256 and here != tokenizer_sha256(stored.tokenizer.to_str()):
        raise UserError(
            f"the {role}'s tokenizer ({found.name_or_path}) is not the one that this model was trained with; use the "
            "base as it was, or allow_different_base (--allow-different-base)"
        )
