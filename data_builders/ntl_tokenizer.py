"""A tokenizer for all languages of a build: byte-level BPE, and the check that it covers their scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from data_builders.errors import DataError
from data_builders.flores_languages import language_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE: every text can be written in it, and no token is unknown. Digits stand alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def balanced(rows: Iterable[tuple[str, str]], num_bytes: int, num_languages: int) -> Iterator[str]:
    """Yield texts of (language, text) until each language has its share of `num_bytes`."""
    left: dict[str, int] = {}
    share = num_bytes // max(1, num_languages)
    for language, text in rows:
        if left.setdefault(language, share) > 0:
            left[language] -= len(text.encode())
            yield text


def coverage(tokenizer: PreTrainedTokenizerBase, samples: Mapping[str, list[str]]) -> dict[str, dict[str, float]]:
    """Return, by language, tokens a character, bytes a token and the share of tokens that are unknown."""
    covered = {}
    for language, sentences in samples.items():
        encoded: list[list[int]] = tokenizer(sentences, add_special_tokens=False)["input_ids"]
        tokens = [token for sentence in encoded for token in sentence]
        unknown = 0 if tokenizer.unk_token_id is None else tokens.count(tokenizer.unk_token_id)
        text = "".join(sentences)
        covered[language] = {
            "tokens_per_character": round(len(tokens) / max(1, len(text)), 4),
            "bytes_per_token": round(len(text.encode()) / max(1, len(tokens)), 4),
            "unknown": round(unknown / max(1, len(tokens)), 6),
        }
    return covered


def require_coverage(name: str, covered: Mapping[str, Mapping[str, float]], limit: float) -> None:
    """Raise DataError where a tokenizer breaks the characters of a language up, or knows too few of them."""
    worst = max(covered, key=lambda code: covered[code]["tokens_per_character"])
    if covered[worst]["tokens_per_character"] > limit:
        count = sum(each["tokens_per_character"] > limit for each in covered.values())
        raise DataError(
            f"{name}: too small for the scripts: {worst} ({language_name(worst)}) takes "
            f"{covered[worst]['tokens_per_character']:.2f} tokens a character, and {limit:g} are allowed "
            f"({count} of {len(covered)} languages take more); raise vocab_size, leave languages out, or raise "
            "max_tokens_per_character"
        )
    unknown = max(covered, key=lambda code: covered[code]["unknown"])
    if covered[unknown]["unknown"] > 0.01:
        raise DataError(
            f"{name}: does not know {covered[unknown]['unknown']:.1%} of the tokens of {unknown} "
            f"({language_name(unknown)}); use another tokenizer, or leave the language out"
        )
