"""Open the corpora of a build: choose the reader of each, and check that they hold the languages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_builders.errors import UserError
from data_builders.hub import is_hub, is_hub_id
from data_builders.ntl.aligned_files import read_aligned, read_texts
from data_builders.ntl.config import CorporaConfig
from data_builders.ntl.corpus import Corpus
from data_builders.ntl.hub_corpus import read_hub_corpus
from data_builders.ntl.table_files import holds_pairs, is_nusax, read_nusax, read_pairs


@dataclass(frozen=True)
class Corpora:
    """The corpora of one model.

    Attributes:
        languages: translated from and into the pivots.
        text_languages: languages whose sentences become rows of text.
        pivots: the other language of every pair.
        directions: `both`, `into_pivots` or `from_pivots`.
        unseen: languages that are only tested.
    """

    corpora: tuple[Corpus, ...]
    languages: tuple[str, ...]
    text_languages: tuple[str, ...]
    pivots: tuple[str, ...]
    max_rows: int | None
    directions: str = "both"
    unseen: tuple[str, ...] = ()

    def pairs(self, available: Collection[str]) -> list[tuple[str, str]]:
        """Return (source, target) of all translations between available languages, in the wanted directions."""
        both = [
            (code, pivot)
            for pivot in self.pivots
            for code in self.languages
            if code != pivot and {code, pivot} <= set(available)
        ]
        return [
            pair
            for code, pivot in both
            for pair, direction in (((code, pivot), "into_pivots"), ((pivot, code), "from_pivots"))
            if self.directions in ("both", direction)
        ]

    def test_pairs(self, available: Collection[str]) -> list[tuple[str, str]]:
        """Return (source, pivot) of all translations to test, unseen languages included."""
        tested = (*self.languages, *self.unseen)
        return [
            (code, pivot)
            for pivot in self.pivots
            for code in tested
            if code != pivot and {code, pivot} <= set(available)
        ]

    @property
    def files(self) -> dict[str, str]:
        """The checksum of everything that is read, by name."""
        return {name: digest for corpus in self.corpora for name, digest in corpus.files.items()}


def open_corpora(name: str, config: CorporaConfig, data: str | None, unseen: Sequence[str] = ()) -> Corpora:
    """Open the corpora of one model; `name` is its setting (aug or anchor), `unseen` are languages only to be tested.

    Raises:
        UserError: a corpus is missing or damaged, or no corpus holds a language.
    """
    parallel = [
        each
        for path in config.parallel
        for each in _parallel(resolve(f"{name}.parallel", path, data), config.wanted | set(unseen))
    ]
    wanted = config.text_languages or config.languages
    texts = [each for path in config.monolingual for each in _texts(resolve(f"{name}.monolingual", path, data), wanted)]
    found = dict.fromkeys(code for corpus in parallel for code in corpus.languages)
    in_text = dict.fromkeys(code for corpus in texts for code in corpus.languages)
    languages = config.languages or tuple(code for code in found if code not in config.pivots)
    text_languages = languages if config.text_languages is None else config.text_languages
    if config.text_languages is None and not config.languages:
        text_languages = tuple(dict.fromkeys((*languages, *in_text)))
    for code in dict.fromkeys((*languages, *text_languages, *unseen)):
        if code not in found and code not in in_text:
            there = ", ".join([*found, *in_text]) or "none at all"
            raise UserError(f"{name}: no corpus holds {code}; found {there}; leave it out, or add a corpus")
    for code in config.pivots if config.languages and parallel else ():
        if code not in found:
            raise UserError(f"{name}.pivots: no parallel corpus holds {code}; found {', '.join(found)}")
    return Corpora(
        (*parallel, *texts), languages, text_languages, config.pivots, config.max_rows, config.directions, tuple(unseen)
    )


def resolve(setting: str, name: str, data: str | None) -> str:
    """Return what `name` refers to: a path in the folder `data`, a path as it stands, or a hub id.

    Raises:
        UserError: it is none of these.
    """
    tried = [*([Path(data) / name] if data else []), Path(name).expanduser()]
    for path in tried:
        if path.exists():
            return str(path)
    if is_hub_id(Path(name.partition("#")[0])):
        return name
    advice = "correct the path" if data else "correct the path, or name the folder that it is in (--data)"
    raise UserError(f"{setting}: {tried[0]}: no such folder; {advice}")


def _parallel(name: str, languages: Collection[str]) -> Sequence[Corpus]:
    path = Path(name)
    if is_hub(Path(name.partition("#")[0])):
        return read_hub_corpus(name, languages)
    _require_folder(path)
    if is_nusax(path):
        return read_nusax(path, languages)
    return read_pairs(path, languages) if holds_pairs(path) else read_aligned(path, languages)


def _texts(name: str, languages: Collection[str]) -> Sequence[Corpus]:
    if is_hub(Path(name.partition("#")[0])):
        return read_hub_corpus(name, languages)
    _require_folder(Path(name))
    return read_texts(Path(name), languages)


def _require_folder(path: Path) -> None:
    if not path.is_dir():
        raise UserError(f"{path}: is a file; name the folder that it is in")
