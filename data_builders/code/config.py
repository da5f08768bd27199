"""Settings of a code corpus, and the constraints between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_builders.bpe_tokenizer import require_size
from data_builders.code.documents import EXTENSIONS
from data_builders.errors import UserError, require_at_least

TEST_SETS = ("humaneval", "mbpp", "codexglue")
PROSE_KINDS = ("docstring", "comment", "document")
OFF = "off"


@dataclass(frozen=True)
class CodeDataConfig:
    """Settings of the code data (section 4.3 of the paper)."""

    seed: int = field(default=0, metadata={"may_differ": True})
    """Draws the files and pairs of each part."""
    sources: tuple[str, ...] = ()
    """Folders, hub datasets (`org/name@revision`), or the words `stdlib` and `site-packages` (of this Python)."""
    languages: tuple[str, ...] = ("python",)
    """Programming languages to read."""
    exclude: tuple[str, ...] = (".*", "__pycache__", "node_modules", "site-packages", "dist-packages")
    """Name patterns of files and folders below a source to leave out."""
    max_source_bytes: int | None = None
    """Bytes after which no more is read of a language, or of documents; the seed draws the files. Null: no limit."""
    tests: str | None = field(default=None, metadata={"may_differ": True})
    """Folder with a folder for each test set, as for `calmctl eval --data`."""
    humaneval: str | None = None
    """Path or hub id of the test set to compare with; null: `humaneval` in `tests`; `off`: no comparison."""
    mbpp: str | None = None
    """The same for MBPP."""
    codexglue: str | None = None
    """The same for CodeXGLUE."""
    licences: Literal["permissive", "permissive_or_unknown", "any"] = "permissive"
    """Which files are kept, by the licence in their header, their package's metadata or the nearest licence file."""
    on_undecodable: Literal["skip", "fail"] = "skip"
    """Whether to skip (and count) a file that is not UTF-8, or fail."""
    min_bytes: int = 100
    """Smaller files are left out."""
    max_bytes: int = 500_000
    """Larger files are left out."""
    max_line_length: int = 1000
    """Files with a longer line are left out."""
    max_mean_line_length: int = 100
    """Files with longer lines on average are left out."""
    min_alphanumeric: float = 0.25
    """Least share of letters and digits in the characters of a file."""
    duplicate_similarity: float = 0.8
    """Estimated Jaccard similarity of token 5-grams from which a file is a near-duplicate; 1: only identical files."""
    overlap_ngram: int = 10
    """Tokens in an n-gram of the comparison with the test sets."""
    overlap_containment: float = 0.5
    """A text that contains at least this share of a test item's n-grams is left out."""
    prose: tuple[str, ...] = PROSE_KINDS
    """Kinds of prose in the anchor's text."""
    min_prose_words: int = 5
    """Words of the shortest text that counts as prose."""
    max_pair_bytes: int = 2000
    """Size of the longest function in a code/docstring pair, without its docstring."""
    max_summary_tokens: int = 64
    """Words and signs of the longest docstring summary in a pair."""
    aug_pairs: float = 1.0
    """Share of the code/docstring pairs that is in the aug's data, as text, besides the code."""
    anchor_pairs: float = 0.0
    """The same share in the anchor's data."""
    dc_share: float = 0.07
    """Share of the training code, in bytes, that is in D_C."""
    dc_pairs_share: float | None = None
    """Share of the training pairs that is in D_C; null: the pairs of the files in D_C."""
    dc_unseen: bool = False
    """Whether the files of D_C are left out of both models' training data. In the paper they are not; but small models
    memorise their training texts, and what bridges learn from memorised texts does not generalise."""
    validation_share: float = 0.03
    """Share of the files that is held out."""
    num_test_functions: int = 500
    """Maximum held-out functions in the test split of `codexglue/`; 0: none is written."""
    vocab_size: int | None = 8192
    """Size of a byte-level BPE tokenizer trained on the aug's and the anchor's data; null: none is trained."""
    tokenizer_bytes: int = 20_000_000
    """Maximum text to train the tokenizer on, half of it from the aug's data and half from the anchor's."""
    max_tokens_per_character: float = 1.0
    """Refuse a tokenizer that needs more in some language: it splits characters."""

    def __post_init__(self) -> None:
        """Raise UserError if a setting is out of range or does not fit the others."""
        self._check_names()
        for name, smallest in (
            ("seed", 0),
            ("min_bytes", 1),
            ("max_line_length", 1),
            ("max_mean_line_length", 1),
            ("overlap_ngram", 3),
            ("min_prose_words", 1),
            ("max_pair_bytes", 1),
            ("max_summary_tokens", 3),
            ("num_test_functions", 0),
            ("tokenizer_bytes", 1),
        ):
            require_at_least(name, getattr(self, name), smallest)
        if self.max_source_bytes is not None:
            require_at_least("max_source_bytes", self.max_source_bytes, 1)
        if self.vocab_size is not None:
            require_size(self.vocab_size)
        if self.max_bytes <= self.min_bytes:
            raise UserError(f"max_bytes: {self.max_bytes} must be more than min_bytes ({self.min_bytes})")
        for name in ("min_alphanumeric", "aug_pairs", "anchor_pairs"):
            _share(name, getattr(self, name))
        for name in ("duplicate_similarity", "overlap_containment", "dc_share"):
            _share(name, getattr(self, name), above=0.0)
        if self.dc_pairs_share is not None:
            _share("dc_pairs_share", self.dc_pairs_share)
            if self.dc_unseen:
                raise UserError("dc_unseen: D_C is whole files then, with their pairs; leave dc_pairs_share out")
        if not 0.0 < self.validation_share < 1.0:
            raise UserError(f"validation_share: {self.validation_share} must lie between 0 and 1")

    def test_sets(self) -> dict[str, Path]:
        """Return the path or hub id of each test set to compare with; raises UserError if one is not set."""
        found = {}
        if self.tests is not None and not Path(self.tests).expanduser().is_dir():
            raise UserError(f"tests: {self.tests}: no such folder; name the one that holds {', '.join(TEST_SETS)}")
        for name in TEST_SETS:
            stated = getattr(self, name) or (self.tests and f"{self.tests}/{name}")
            if not stated:
                raise UserError(f"{name}: name its path or hub id (or all with --data DIR), or set {name}={OFF}")
            if not getattr(self, name) and not Path(stated).expanduser().exists():  # else it could pass for a hub id
                raise UserError(f"{stated}: no such folder; add it, name another with {name}=, or set {name}={OFF}")
            if stated != OFF:
                found[name] = Path(stated).expanduser()
        return found

    def _check_names(self) -> None:
        for name, allowed in (("languages", tuple(EXTENSIONS)), ("prose", PROSE_KINDS)):
            if unknown := [value for value in getattr(self, name) if value not in allowed]:
                raise UserError(f"{name}: {unknown[0]!r} is not one of {', '.join(allowed)}")
        if not self.languages or len(set(self.languages)) != len(self.languages):
            raise UserError(f"languages: {list(self.languages)} must be at least one, each once")
        for name, choices in (
            ("licences", ("permissive", "permissive_or_unknown", "any")),
            ("on_undecodable", ("skip", "fail")),
        ):
            if getattr(self, name) not in choices:
                raise UserError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(choices)}")


def _share(name: str, value: float, above: float | None = None) -> None:
    if not 0.0 <= value <= 1.0 or value == above:
        raise UserError(f"{name}: {value} must lie between 0 and 1{'' if above is None else ', and not be 0'}")
