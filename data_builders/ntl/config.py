"""The settings of a build of low-resource language data, and every constraint between them."""

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
    """What one of the models is trained on. Languages are codes of FLORES-200, such as lij_Latn."""

    parallel: tuple[str, ...] = ()
    """Folders (NLLB-Seed, NTREX, NusaX, or line-aligned files) and ids of datasets of the hub."""
    monolingual: tuple[str, ...] = ()
    """The same, of files that need not be aligned."""
    languages: tuple[str, ...] = ()
    """Languages to translate from and into the pivots; none: all that the parallel corpora hold."""
    text_languages: tuple[str, ...] | None = None
    """Languages whose sentences are rows of text as well; null: `languages`."""
    pivots: tuple[str, ...] = (ENGLISH,)
    """The other side of every pair."""
    directions: Literal["both", "into_pivots", "from_pivots"] = "both"
    """Which way translations go: from `languages` into the pivots, from the pivots, or both."""
    max_rows: int | None = None
    """Aligned rows of each corpus, its first; null: all."""

    def __post_init__(self) -> None:
        """Complete the codes; raise UserError for one that is unknown."""
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
        """Languages that have to be read; none: all."""
        if not self.languages:
            return frozenset()
        return frozenset((*self.languages, *(self.text_languages or ()), *self.pivots))


@dataclass(frozen=True)
class NTLDataConfig:
    """Settings of the data of the paper's second task (section 4.2)."""

    seed: int = field(default=0, metadata={"may_differ": True})
    data_folder: str | None = field(default=None, metadata={"may_differ": True})
    """Folder that the relative paths of corpora and FLORES are in."""
    aug: CorporaConfig = field(default_factory=CorporaConfig)
    """Low-resource languages, for the augmenting model."""
    anchor: CorporaConfig = field(default_factory=CorporaConfig)
    """English and better-resourced languages, for an anchor that is trained from nothing and for D_C; may be empty."""
    check_overlap: bool = True
    """Remove what overlaps with FLORES; without it nothing is compared, and `flores` is not needed."""
    flores: str | None = None
    flores_languages: tuple[str, ...] = ()
    """Languages of FLORES to compare with, beside those of the data; none: all 204."""
    near_duplicate: float = 0.5
    """Share of the shorter text's 12-byte shingles from which on two sentences are near-duplicates."""
    max_characters: int = 1000
    """Sentences that are longer are left out."""
    max_shots: int = 0
    """Worked pairs before a translation: as many as are drawn, evenly, from 0 to this number."""
    validation_fraction: float = 0.02
    """Share of the aligned rows that no training file may hold."""
    num_validation_rows: int = 1000
    """Rows of each validation file at most."""
    test_fraction: float = 0.0
    """Share of the aligned rows that is held out for tests: translations into the pivots, as prompt and completion."""
    num_test_rows: int = 40
    """Test rows of each language at most."""
    unseen_languages: tuple[str, ...] = ()
    """Languages of the aug's parallel corpora that are in no file but `unseen_test`."""
    composition_fraction: float = 0.05
    """Share of the aug's rows that is D_C: 5 percent in the paper, 1 where the aug is used as it is."""
    composition_unseen: float = 0.0
    """Share of the aligned rows that no model is trained on, and D_C is drawn from; 0: D_C is part of what models are
    trained on, as in the paper. Small models know their training sentences by heart, and bridges trained on these learn
    what does not hold for others."""
    high_resource_share: float = 0.2
    """Share of D_C that comes from the anchor's rows."""
    composition_once: bool = False
    """Leave out of D_C what holds a sentence that it has already, in another language's row say: bridges know by heart
    what they have seen once, and learn nothing from it when it comes again."""
    composition_kinds: tuple[str, ...] = KINDS
    """Kinds of rows that D_C may hold."""
    train_rows: Literal["text", "pairs"] = "text"
    """Training files of both models as `text`, learned whole, or as `prompt` and `completion`."""
    composition_rows: Literal["text", "pairs"] = "pairs"
    tokenizer: str | None = None
    """Null: train one on the data. A folder or a hub id (`id@revision` works): check that one."""
    vocab_size: int = 8192
    tokenizer_bytes: int = 40_000_000
    """Text that a tokenizer is trained on at most, the same share of each language."""
    max_tokens_per_character: float = 1.0
    """A tokenizer that needs more in some language breaks its characters up, and is refused."""

    def __post_init__(self) -> None:
        """Raise UserError where a setting is out of its range."""
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
