"""Bits of texts, as the engine finds them, in batches of a given size."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.inference.likelihood import ScoredTexts


def bits_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    texts: Sequence[str],
    batch_size: int,
) -> list[tuple[int, float]]:
    """Return index and bits of each text."""
    scored = ScoredTexts(model, tokenizer, prompts, texts)
    return [pair for places in scored.batches(batch_size) for pair in scored.bits(places)]
