"""Prompt ids: texts that are gone on from, as token ids."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


def prompt_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise texts with what the tokenizer puts before one (a beginning-of-text token), but nothing after it.

    Some tokenizers end every text, and a model that has read its end writes something else.
    """
    num_after = _num_after(tokenizer)
    # `verbose` would warn of texts beyond the tokenizer's own limit; the model's is what counts.
    ids = tokenizer(list(texts), return_attention_mask=False, verbose=False)["input_ids"]
    return [each[: len(each) - num_after] for each in ids] if num_after else ids


def _num_after(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many special tokens the tokenizer puts after a text."""
    alone, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    starts = [start for start in range(len(whole)) if whole[start : start + len(alone)] == alone]
    return len(whole) - len(alone) - starts[0] if starts else 0
