"""The tokenizer of a build: byte-level BPE trained on its corpus, or one that is named; and the check that it suits it.

Of a trained one every text comes back exactly, and digits are tokens each. White space is kept as it is, and runs of
it, such as an indentation, may become one token.
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
# Words (many scripts write vowels as marks) with the character before them, single digits, signs, line ends, and white
# space without its last character, which goes with the word that follows.
_PIECES = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def require_size(size: int) -> None:
    """Raise UserError for a vocabulary with no room for the 256 bytes and the two special tokens."""
    if size < MIN_SIZE:
        raise UserError(
            f"vocab_size: {size} is too small for the 256 bytes and two special tokens; use at least {MIN_SIZE}"
        )


def train_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of `size` tokens, fewer where the texts do not give so many; see `require_size`."""
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
    """Return a tokenizer as one of transformers that pads on the left.

    Args:
        max_length: tokens.
        unk: what stands for unknown words; None: there are none, and no text is a special token.
    """
    from transformers import PreTrainedTokenizerFast

    # Source code about tokenizers is full of "<pad>" and "<eos>".
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


def load_tokenizer(name: str, may_download: bool = True) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a path or a hub id, which may end in `@revision`."""
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
    """Load a tokenizer, or return None for what may be a hub id and is not here: a plan downloads nothing."""
    try:
        return load_tokenizer(name, may_download=False)
    except UserError:
        if Path(name).exists() or not _HUB_ID.fullmatch(name):
            raise
        return None


def coverage(tokenizer: PreTrainedTokenizerBase, samples: Mapping[str, list[str]]) -> dict[str, dict[str, float]]:
    """Return, by language, tokens a character, bytes a token and the share of tokens that are unknown."""
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
    """Raise UserError where a tokenizer breaks the characters of a language up, or knows too few of them.

    Args:
        setting: what named the tokenizer, and its value.
        covered: what `coverage` returned.
        limit: most tokens a character.
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
