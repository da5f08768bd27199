"""The keys of the key-value task: names, values, and which keys are held in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_builders.bpe_tokenizer import load_plain_tokenizer
from data_builders.errors import UserError
from data_builders.kv.config import KVDataConfig
from data_builders.kv.text import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_SPACE_MARKERS = "\u0120\u2581 "


@dataclass(frozen=True)
class KeyTable:
    """All keys in file order: `names[i]` has the value `values[i]`."""

    names: list[str]
    values: NDArray[np.int64]
    held_in: NDArray[np.bool_]
    augs: NDArray[np.int64]
    """The m_A that learns each key, from 0."""

    @property
    def held_in_indices(self) -> NDArray[np.int64]:
        """Indices of the held-in keys."""
        return np.flatnonzero(self.held_in)

    @property
    def held_out_indices(self) -> NDArray[np.int64]:
        """Indices of the keys that D_C never shows."""
        return np.flatnonzero(~self.held_in)

    def of_aug(self, aug: int) -> NDArray[np.int64]:
        """Return the indices of the keys that one m_A learns."""
        return np.flatnonzero(self.augs == aug)

    def names_of_aug(self, aug: int) -> list[str]:
        """Return the names of the keys that one m_A learns."""
        return [self.names[index] for index in self.of_aug(aug)]


def build_keys(config: KVDataConfig, rng: np.random.Generator) -> tuple[KeyTable, dict[str, Any]]:
    """Draw names, values and held-in keys; return the table, and the manifest's entry on the tokenizers."""
    if config.tokenizer is None:
        names = random_names(config.num_keys, config.min_key_length, config.max_key_length, rng)
        tokenizer: dict[str, Any] = {"source": "word-level", "folder": "tokenizer", "candidates": None}
        if config.anchor_cut is not None:
            tokenizer["source"] = "byte-level"
            tokenizer["augs"] = [aug_tokenizer_folder(aug) for aug in range(config.num_augs)]
    else:
        candidates = vocabulary_names(
            load_plain_tokenizer(config.tokenizer), config.min_key_length, config.max_key_length
        )
        if config.num_keys > len(candidates):
            raise UserError(
                f"num_keys: {config.num_keys} is more than the {len(candidates)} tokens of {config.tokenizer}"
                f" that are {config.min_key_length} to {config.max_key_length} letters and one token"
                " after a space; use fewer keys or another tokenizer"
            )
        names = [candidates[index] for index in rng.permutation(len(candidates))[: config.num_keys]]
        tokenizer = {"source": config.tokenizer, "folder": None, "candidates": len(candidates)}
    return _assign(names, config, rng), tokenizer


def _assign(names: list[str], config: KVDataConfig, rng: np.random.Generator) -> KeyTable:
    """Give every key a value, and choose the same share of held-in keys for every value."""
    value_order = rng.permutation(config.num_values) + 1
    grouped = np.sort(np.arange(config.num_keys) % config.num_values)
    values = value_order[grouped]
    # Keys are grouped by value here, so evenly spaced positions select the same share of each group.
    positions = (np.arange(config.num_held_in) + rng.random()) * (config.num_keys / config.num_held_in)
    held_in = np.zeros(config.num_keys, dtype=np.bool_)
    held_in[np.floor(positions).astype(np.int64)] = True
    # Held-in and held-out keys are dealt out in this order, so each m_A gets equally many of each value.
    augs = np.empty(config.num_keys, dtype=np.int64)
    for which in (held_in, ~held_in):
        augs[which] = np.arange(which.sum()) % config.num_augs
    shuffled = rng.permutation(config.num_keys)
    return KeyTable(names, values[shuffled].astype(np.int64), held_in[shuffled], augs[shuffled])


def aug_tokenizer_folder(aug: int) -> str:
    """Return the folder of the tokenizer of one m_A, counted from 0."""
    return "tokenizer_aug" if aug == 0 else f"tokenizer_aug{aug + 1}"


def random_names(count: int, shortest: int, longest: int, rng: np.random.Generator) -> list[str]:
    """Draw distinct lowercase strings in random order, with all lengths about equally frequent where possible."""
    lengths = range(shortest, longest + 1)
    available = [26**length - sum(len(word) == length for word in WORDS) for length in lengths]
    if count > sum(available):
        raise UserError(
            f"num_keys: {count} is more than the {sum(available)} strings of {shortest} to {longest} letters;"
            " use fewer keys or a larger max_key_length"
        )
    names: list[str] = []
    for position, length in enumerate(lengths):
        share = (count - len(names)) // (len(lengths) - position)
        # What short lengths cannot give is spread over longer ones; each takes at least what the later cannot hold.
        share = max(share, count - len(names) - sum(available[position + 1 :]))
        names += _names_of_length(min(share, available[position]), length, rng)
    return [names[index] for index in rng.permutation(count)]


def _names_of_length(count: int, length: int, rng: np.random.Generator) -> list[str]:
    reserved = [word for word in WORDS if len(word) == length]
    codes = rng.choice(26**length, size=min(count + len(reserved), 26**length), replace=False)
    letters = np.array(list(_LETTERS))
    spelled = letters[(codes[:, None] // 26 ** np.arange(length)) % 26]
    names = ["".join(row) for row in spelled.tolist()]
    return [name for name in names if name not in reserved][:count]


def vocabulary_names(tokenizer: PreTrainedTokenizerBase, shortest: int, longest: int) -> list[str]:
    """Return, sorted, the ASCII words of the vocabulary that are exactly one token after a space."""
    word = re.compile(rf"[A-Za-z]{{{shortest},{longest}}}")
    surfaces = {token.lstrip(_SPACE_MARKERS) for token in tokenizer.get_vocab()}
    names = sorted(name for name in surfaces if word.fullmatch(name) and name.lower() not in WORDS)
    if not names:
        return []
    start = _encode(tokenizer, [":"])[0]
    encoded = _encode(tokenizer, [f": {name}" for name in names])
    unknown = tokenizer.unk_token_id
    return [
        name
        for name, ids in zip(names, encoded, strict=True)
        if len(ids) == len(start) + 1 and ids[:-1] == start and ids[-1] != unknown
    ]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    ids: Iterable[Iterable[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [list(row) for row in ids]
