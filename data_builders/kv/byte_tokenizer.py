"""Byte-level tokenizers with a fixed vocabulary, which cut one text differently: keys whole or not, digits in groups.

Nothing is trained: a vocabulary is the 256 bytes and the pieces that a cut is made of, each with and without the space
before it. What is no piece falls into its bytes, so every text comes back exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from data_builders.bpe_tokenizer import EOS, PAD

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MODEL_MAX_LENGTH = 1024
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_SIGNS = "=+-x:"


@dataclass(frozen=True)
class Cut:
    """How a tokenizer cuts words and numbers, from their beginning on.

    Attributes:
        letters: most letters of a word in a token; None = words of the vocabulary are whole.
        digits: most digits of a number in a token.
    """

    letters: int | None
    digits: int

    def words(self, keys: Sequence[str]) -> list[str]:
        """Return the keys that are tokens."""
        return list(keys) if self.letters is None else []


CUTS: Final = {"pieces": Cut(2, 1), "words": Cut(None, 2), "words_triples": Cut(None, 3)}


def build_byte_tokenizer(cut: Cut, keys: Sequence[str], words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a cut; `words` open a text and are one token in every cut."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # All pieces are ASCII, and the space is the one of its characters that the byte-level alphabet writes differently.
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        split_special_tokens=True,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL_MAX_LENGTH,
    )


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
