"""Text: what token ids say, to the letter."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

# What a decoder writes for bytes that are no whole character (yet).
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of token ids, without special tokens and without tidying up spaces."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def completion_of(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], new_ids: Sequence[int]) -> str:
    """Decode prompt and completion together and cut, so that a leading space of the completion survives."""
    return text_of(tokenizer, [*prompt_ids, *new_ids])[len(text_of(tokenizer, prompt_ids)) :]
