"""The tokenizers of key-value data: word-level, and byte-level with one of several cuts.

Both are ordinary `transformers.PreTrainedTokenizerFast`, and neither is trained.

Word-level: whole keys, words, single digits and signs are tokens. White space is dropped; decoding writes a space
between tokens, but none inside a number or between the sign of a result and its first digit.

Byte-level: the vocabulary is the 256 bytes and the pieces of a cut, each with and without a leading space. Other text
is encoded byte by byte, so the tokenizer is lossless.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from data_builders.bpe_tokenizer import EOS, PAD, as_fast

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

UNK = "<unk>"
MODEL_MAX_LENGTH = 1024
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_SIGNS = "=+-x:"


def build_word_tokenizer(keys: Sequence[str], words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer over special tokens, digits, signs, `words` and `keys`, with ids in that order."""
    tokens = [PAD, EOS, UNK, *_DIGITS, *_SIGNS, *words, *keys]
    if len(set(tokens)) != len(tokens):
        raise ValueError("words and keys must be distinct and must not repeat a digit, a sign or a special token")
    return as_fast(_word_level(tokens), MODEL_MAX_LENGTH, unk=UNK)


def _word_level(tokens: Sequence[str]) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[-+=:]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            # Used only because it writes a space before every token but the first.
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=[0-9]) (?=[0-9])"), ""),
            decoders.Replace(Regex(r"(?<== [-+]) (?=[0-9])"), ""),
            decoders.Replace(Regex(r"(?<=^[-+]) (?=[0-9])"), ""),
            decoders.Replace(" :", ":"),
        ]
    )
    return tokenizer


@dataclass(frozen=True)
class Cut:
    """How a tokenizer splits words and numbers into tokens, from left to right.

    Attributes:
        letters: maximum letters in a token; None: keys are whole tokens.
        digits: maximum digits in a token.
    """

    letters: int | None
    digits: int

    def words(self, keys: Sequence[str]) -> list[str]:
        """Return the keys that are whole tokens."""
        return list(keys) if self.letters is None else []


CUTS: Final = {"pieces": Cut(2, 1), "words": Cut(None, 2), "words_triples": Cut(None, 3)}


def build_byte_tokenizer(cut: Cut, keys: Sequence[str], words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build the byte-level tokenizer of a cut; `words` start a text and are one token in every cut."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # All pieces are ASCII; the space is their only character that the byte-level alphabet writes differently.
    pieces = [piece.replace(" ", "\u0120") for piece in (*words, *_pieces(cut, keys))]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([PAD, EOS, *alphabet, *pieces]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    letters = "+" if cut.letters is None else f"{{1,{cut.letters}}}"
    # fmt: off
    pattern = "|".join([
        *words, rf" ?\p{{L}}{letters}", rf" ?\p{{N}}{{1,{cut.digits}}}", r" ?[^\s\p{L}\p{N}]", r"\s",
    ])
    # fmt: on
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return as_fast(tokenizer, MODEL_MAX_LENGTH)


def _pieces(cut: Cut, keys: Sequence[str]) -> list[str]:
    bare = [
        *_SIGNS,
        *_runs(_DIGITS, range(1, cut.digits + 1)),
        *_runs(_LETTERS, range(1, (cut.letters or 0) + 1)),
        *cut.words(keys),
    ]
    return [spaced for piece in bare for spaced in (piece, f" {piece}")]


def _runs(characters: str, lengths: Iterable[int]) -> list[str]:
    return ["".join(run) for length in lengths for run in product(characters, repeat=length)]
