"""The word-level tokenizer of the key-value task: whole keys, single digits, and the signs between them.

It is an ordinary `transformers.PreTrainedTokenizerFast`. Digits become one token each and white space
is dropped; decoding writes spaces between words, none inside a number, and none between the sign of a
result and its first digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
SPECIAL_TOKENS = (PAD, EOS, UNK)
MODEL_MAX_LENGTH = 1024
_DIGITS = tuple("0123456789")
_SIGNS = ("=", "+", "-", "x", ":")


def build_word_tokenizer(keys: Sequence[str], words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer over special tokens, digits, signs, `words` and `keys`, with ids in that order."""
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL_TOKENS, *_DIGITS, *_SIGNS, *words, *keys]
    if len(set(tokens)) != len(tokens):
        raise ValueError("words and keys must be distinct and must not repeat a digit, a sign or a special token")
    return PreTrainedTokenizerFast(
        tokenizer_object=_word_level(tokens),
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL_MAX_LENGTH,
    )


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
            # The WordPiece decoder is what writes a space before every token but the first.
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=[0-9]) (?=[0-9])"), ""),
            decoders.Replace(Regex(r"(?<== [-+]) (?=[0-9])"), ""),
            decoders.Replace(Regex(r"(?<=^[-+]) (?=[0-9])"), ""),
            decoders.Replace(" :", ":"),
        ]
    )
    return tokenizer
