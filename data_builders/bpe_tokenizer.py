"""Tokenizers of builds: train byte-level BPE on a corpus, or load a named one; check that it suits the languages.

A trained tokenizer is lossless, and every digit is a token of its own. White space is kept, and runs of it, such as
an indentation, may become one token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data_builders.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
MODEL_MAX_LENGTH = 1 << 20
MIN_SIZE = 256 + 2
MAX_UNKNOWN = 0.01
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?(@\S+)?")
# Words (with marks, as many scripts write vowels so) and the character before them, single digits, punctuation, line
# ends, and white space except its last character, which belongs to the next word.
_PIECES = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def require_size(size: int) -> None:
    """Raise UserError for a vocabulary with no room for the 256 bytes and the two special tokens."""
    if size < MIN_SIZE:
        raise UserError(
            f"vocab_size: {size} is too small for the 256 bytes and two special tokens; use at least {MIN_SIZE}"
        )


def train_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of `size` tokens, or fewer if the texts do not yield so many; see `require_size`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    require_size(size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return as_fast(tokenizer, MODEL_MAX_LENGTH)


def as_fast(tokenizer: Tokenizer, max_length: int, unk: str | None = None) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer as a fast tokenizer of transformers, with left padding.

    Args:
        max_length: in tokens.
        unk: the token for unknown words; None: there is none, and special tokens in texts are split like other text.
    """
    from transformers import PreTrainedTokenizerFast

    # Source code about tokenizers is full of "<pad>" and "<eos>", which are ordinary text there.
    special = {"split_special_tokens": True} if unk is None else {"unk_token": unk}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        **special,
    )


def load_plain_tokenizer(name: str, may_download: bool = True) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a path or a hub id, which may end in `@revision`; raises UserError if it fails."""
    from transformers import AutoTokenizer

    source, _, revision = (name, "", "") if Path(name).exists() else name.partition("@")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False, local_files_only=not may_download
        )
    except Exception as error:  # the tokenizers library has no error of its own
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"tokenizer: {name!r} cannot be loaded ({reason}); give a folder or a hub id") from error
    return tokenizer


def tokenizer_at_hand(name: str) -> PreTrainedTokenizerBase | None:
    """Load a tokenizer without downloading; return None if `name` may be a hub id that is not cached."""
    try:
        return load_plain_tokenizer(name, may_download=False)
    except UserError:
        if Path(name).exists() or not _HUB_ID.fullmatch(name):
            raise
        return None


def coverage(tokenizer: PreTrainedTokenizerBase, samples: Mapping[str, list[str]]) -> dict[str, dict[str, float]]:
    """Return, by language, tokens per character, bytes per token and the share of unknown tokens."""
    covered = {}
    for language, texts in sorted(samples.items()):
        encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        tokens = [token for text in encoded for token in text]
        unknown = 0 if tokenizer.unk_token_id is None else tokens.count(tokenizer.unk_token_id)
        characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
        covered[language] = {
            "tokens_per_character": round(len(tokens) / max(1, characters), 4),
            "bytes_per_token": round(size / max(1, len(tokens)), 4),
            "unknown": round(unknown / max(1, len(tokens)), 6),
        }
    return covered


def require_coverage(setting: str, covered: Mapping[str, Mapping[str, float]], limit: float) -> None:
    """Raise UserError if a tokenizer splits the characters of a language, or has too many unknown tokens in it.

    Args:
        setting: the setting that named the tokenizer, with its value, for the error message.
        covered: the result of `coverage`.
        limit: maximum tokens per character.
    """
    worst = max(covered, key=lambda code: covered[code]["tokens_per_character"])
    if covered[worst]["tokens_per_character"] > limit:
        count = sum(each["tokens_per_character"] > limit for each in covered.values())
        raise UserError(
            f"{setting}: too small for the scripts: {worst} takes {covered[worst]['tokens_per_character']:.2f} tokens a"
            f" character, and {limit:g} are allowed ({count} of {len(covered)} languages take more); raise vocab_size,"
            " leave languages out, or raise max_tokens_per_character"
        )
    unknown = max(covered, key=lambda code: covered[code]["unknown"])
    if covered[unknown]["unknown"] > MAX_UNKNOWN:
        raise UserError(
            f"{setting}: does not know {covered[unknown]['unknown']:.1%} of the tokens of {unknown}; use another"
            " tokenizer, or leave the language out"
        )
