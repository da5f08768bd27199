"""Settings of a build of low-resource language data, and the constraints between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from data_builders.benchmarks.languages import ENGLISH, LANGUAGES, LATER_LANGUAGES, full_code, require_language
from data_builders.bpe_tokenizer import require_size
from data_builders.errors import UserError, require_at_least

KINDS = ("text", "translation")
DIRECTIONS = ("both", "into_pivots", "from_pivots")


@dataclass(frozen=True)
class CorporaConfig:
    """The training corpora of one model. Languages are FLORES-200 codes, such as lij_Latn."""

    parallel: tuple[str, ...] = ()
    """Folders (NLLB-Seed, NTREX, NusaX, line-aligned files, or files of sentence pairs) and hub ids."""
    monolingual: tuple[str, ...] = ()
    """The same, but the files need not be aligned."""
    languages: tuple[str, ...] = ()
    """Languages to translate from and into the pivots; empty: all languages of the parallel corpora."""
    text_languages: tuple[str, ...] | None = None
    """Languages whose sentences are rows of text as well; null: `languages`."""
    pivots: tuple[str, ...] = (ENGLISH,)
    """The other language of every pair."""
    directions: Literal["both", "into_pivots", "from_pivots"] = "both"
    """Directions of the translations: from `languages` into the pivots, from the pivots, or both."""
    max_rows: int | None = None
    """Use only the first so many aligned rows of each corpus; null: all."""

    def __post_init__(self) -> None:
        """Complete the codes; raise UserError for an unknown one."""
        for name in ("languages", "text_languages", "pivots"):
            if (codes := getattr(self, name)) is not None:
                complete = tuple(dict.fromkeys(map(full_code, codes)))
                for code in complete:
                    require_language(code, {**LANGUAGES, **LATER_LANGUAGES})
                object.__setattr__(self, name, complete)
        if self.directions not in DIRECTIONS:
            raise UserError(f"directions: {self.directions!r} is not one of {', '.join(DIRECTIONS)}")
        if not self.pivots:
            raise UserError("pivots: name at least one language, such as eng_Latn")
        if self.max_rows is not None:
            require_at_least("max_rows", self.max_rows, 1)

    @property
    def wanted(self) -> frozenset[str]:
        """Languages to read; empty: all."""
        if not self.languages:
            return frozenset()
        return frozenset((*self.languages, *(self.text_languages or ()), *self.pivots))


@dataclass(frozen=True)
class NTLDataConfig:
    """Settings of the data for low-resource languages (section 4.2 of the paper)."""

    seed: int = field(default=0, metadata={"may_differ": True})
    """Draws what is held out, and the rows of D_C."""
    data_folder: str | None = field(default=None, metadata={"may_differ": True})
    """Folder that contains the relative paths of corpora and FLORES."""
    aug: CorporaConfig = field(default_factory=CorporaConfig)
    """Low-resource languages, for the aug."""
    anchor: CorporaConfig = field(default_factory=CorporaConfig)
    """English and better-resourced languages, for an anchor trained from scratch and for D_C; may be empty."""
    check_overlap: bool = True
    """Remove rows that overlap with FLORES; if false, nothing is compared, and `flores` is not needed."""
    flores: str | None = None
    """Folder, archive or hub id of FLORES-200, which no training file may overlap with."""
    flores_languages: tuple[str, ...] = ()
    """Languages of FLORES to compare with, besides those of the data; empty: all 204."""
    near_duplicate: float = 0.5
    """Share of the shorter text's 12-byte shingles from which two sentences are near-duplicates."""
    max_characters: int = 1000
    """Longer sentences are left out."""
    max_shots: int = 0
    """Maximum worked pairs before a translation; their number is drawn uniformly from 0 to this."""
    validation_fraction: float = 0.02
    """Share of the aligned rows that is held out for validation."""
    num_validation_rows: int = 1000
    """Maximum rows of each validation file."""
    test_fraction: float = 0.0
    """Share of the aligned rows that is held out for tests: translations into the pivots, as prompt and completion."""
    num_test_rows: int = 40
    """Maximum test rows of each language."""
    unseen_languages: tuple[str, ...] = ()
    """Languages of the aug's parallel corpora that occur in no file but `unseen_test`."""
    composition_fraction: float = 0.05
    """The aug's rows in D_C, as a share of `aug_train`: 5 percent in the paper, 1 if the aug is used as it is."""
    composition_unseen: float = 0.0
    """Share of the aligned rows reserved for D_C: no model is trained on them. 0: D_C is drawn from the training rows,
    as in the paper; but small models memorise these, and what bridges learn from memorised sentences does not
    generalise."""
    high_resource_share: float = 0.2
    """Share of D_C that comes from the anchor's rows."""
    composition_once: bool = False
    """Leave out of D_C rows that repeat a sentence of another row, for example in another language pair: bridges
    memorise a sentence when they first see it, and learn nothing from its repetition."""
    composition_kinds: tuple[str, ...] = KINDS
    """Kinds of rows that D_C may hold."""
    train_rows: Literal["text", "pairs"] = "text"
    """Columns of both models' training files: `text`, all of it learned, or (pairs) `prompt` and `completion`."""
    composition_rows: Literal["text", "pairs"] = "pairs"
    """The same for D_C."""
    tokenizer: str | None = None
    """Null: train one on the data. A folder or a hub id (or `id@revision`): check that tokenizer."""
    vocab_size: int = 8192
    """Size of a tokenizer that is trained on the data."""
    tokenizer_bytes: int = 40_000_000
    """Maximum text to train the tokenizer on, the same share of each language."""
    max_tokens_per_character: float = 1.0
    """Refuse a tokenizer that needs more in some language: it splits characters."""

    def __post_init__(self) -> None:
        """Raise UserError if a setting is out of range or does not fit the others."""
        require_at_least("seed", self.seed, 0)
        require_at_least("max_shots", self.max_shots, 0)
        require_at_least("max_characters", self.max_characters, 1)
        require_at_least("num_validation_rows", self.num_validation_rows, 1)
        require_at_least("num_test_rows", self.num_test_rows, 1)
        require_at_least("tokenizer_bytes", self.tokenizer_bytes, 1)
        for name in ("validation_fraction", "composition_fraction", "high_resource_share"):
            allowed = (("high_resource_share", 0.0), ("composition_fraction", 1.0))
            if not 0.0 < getattr(self, name) < 1.0 and (name, getattr(self, name)) not in allowed:
                raise UserError(f"{name}: {getattr(self, name)} must lie between 0 and 1")
        if not 0.0 <= self.composition_unseen < 1.0 - self.validation_fraction:
            raise UserError(
                f"composition_unseen: {self.composition_unseen} must be 0 or more, and leave rows to train on beside "
                f"validation_fraction ({self.validation_fraction})"
            )
        if not 0.0 <= self.test_fraction < 1.0 - self.validation_fraction - self.composition_unseen:
            raise UserError(f"test_fraction: {self.test_fraction} must be 0 or more, and leave rows to train on")
        self._check_unseen()
        if not 0.0 < self.near_duplicate <= 1.0:
            raise UserError(f"near_duplicate: {self.near_duplicate} must lie between 0 and 1")
        if not self.composition_kinds or set(self.composition_kinds) - set(KINDS):
            raise UserError(f"composition_kinds: {list(self.composition_kinds)} must be some of {', '.join(KINDS)}")
        for name, value in (("train_rows", self.train_rows), ("composition_rows", self.composition_rows)):
            if value not in ("text", "pairs"):
                raise UserError(f"{name}: {value!r} is not one of text, pairs")
        if self.tokenizer is None:
            require_size(self.vocab_size)

    def _check_unseen(self) -> None:
        object.__setattr__(self, "unseen_languages", tuple(dict.fromkeys(map(full_code, self.unseen_languages))))
        for code in self.unseen_languages:
            require_language(code, {**LANGUAGES, **LATER_LANGUAGES})
        if self.unseen_languages and not (self.aug.languages and self.test_fraction):
            wanted = "aug.languages" if not self.aug.languages else "test_fraction"
            raise UserError(f"unseen_languages: set {wanted} as well, which says what is trained on and what is not")
