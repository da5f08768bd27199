"""Text: what token ids say, to the letter."""

import re
from codecs import getincrementaldecoder
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

# What a decoder writes for bytes that are no whole character (yet).
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
# Tokens that open, close or fill up a text. All other special tokens are a part of it: tokenizers have line breaks,
# indentation and markers such as [DONE] among them.
FRAME = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")


def frame_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that stand around a text and are never part of it."""
    return {getattr(tokenizer, name) for name in FRAME} - {None}


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of token ids, without tokens of its frame and without tidying up spaces.

    Where it ends within a character, what stands before that is kept: decoders of tokens for single bytes give up the
    whole run of them.
    """
    frame = frame_ids(tokenizer)
    inside = [token for token in ids if token not in frame]
    text = _decoded(tokenizer, inside)
    if text.endswith(UNFINISHED) and (torn := _num_torn(tokenizer.convert_ids_to_tokens(inside[-3:]))):
        return _decoded(tokenizer, inside[:-torn]) + UNFINISHED
    return text


def _num_torn(tokens: Sequence[str]) -> int:
    """Return how many of the last tokens are single bytes of a character that has not ended."""
    for number in range(1, len(tokens) + 1):
        found = [_BYTE.fullmatch(token) for token in tokens[-number:]]
        if not all(found):
            return 0
        try:
            if not getincrementaldecoder("utf-8")().decode(bytes(int(each[1], 16) for each in found if each)):
                return number
        except UnicodeDecodeError:  # these begin within a character
            pass
    return 0


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def completion_of(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], new_ids: Sequence[int]) -> str:
    """Return what new tokens add to the text of a prompt: decoded together, so that a leading space survives.

    Bytes that are no character can spoil those before them in a decoder's eyes; then they are decoded alone.
    """
    prompt, whole = text_of(tokenizer, prompt_ids), text_of(tokenizer, [*prompt_ids, *new_ids])
    return whole[len(prompt) :] if whole.startswith(prompt) else text_of(tokenizer, new_ids)
