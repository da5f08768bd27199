"""Tokenise prompts: with the special tokens that begin a text, without those that end it."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.tokenizers.same_ids import PROBES


def prompt_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise texts with the special tokens that the tokenizer puts before a text, but without those after it.

    Some tokenizers end every text with a token after which a model would not continue the prompt.

    Raises:
        UserError: the vocabulary has no token for some part of a text, not even an unknown token; see also
            `ids_around`.
    """
    before, _ = ids_around(tokenizer, texts)
    try:
        bare = _tokenised(tokenizer, list(texts), False)
    except Exception as error:  # the tokenizers library raises bare `Exception`
        unread = next((repr(text[:80]) for text in texts if ids_of(tokenizer, text) is None), "a text")
        raise UserError(f"the tokenizer ({type(tokenizer).__name__}) cannot read {unread}: {error}") from error
    return [[*before, *ids] for ids in bare] if before else bare


def ids_around(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str] = ()) -> tuple[list[int], list[int]]:
    """Return the special tokens that a tokenizer puts before and after a text.

    They are found by tokenising a text with and without special tokens. The first text whose bare ids occur exactly
    once in its full ids decides; if none of `texts` does, one of `PROBES` or made from the tokenizer's vocabulary.

    Raises:
        UserError: no text decides, since the tokenizer changes the ids of texts when it adds special tokens.
    """
    if not ids_of(tokenizer, "", special=True):
        return [], []
    for text in chain(texts, PROBES, _own_texts(tokenizer)):
        bare, whole = ids_of(tokenizer, text), ids_of(tokenizer, text, special=True)
        if bare and whole and len(places := list(_places(bare, whole))) == 1:
            return whole[: places[0]], whole[places[0] + len(bare) :]
    raise UserError(
        f"the tokenizer ({type(tokenizer).__name__}) does not keep the tokens of a text together when it adds special "
        "ones, so that prompts cannot be told from what ends them; use another tokenizer"
    )


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str, special: bool = False) -> list[int] | None:
    """Return the ids of a text, with or without special tokens; None if the tokenizer cannot encode it."""
    try:
        return _tokenised(tokenizer, text, special)
    except Exception:  # the tokenizers library raises bare `Exception`
        return None


def _tokenised(tokenizer: PreTrainedTokenizerBase, texts: str | list[str], special: bool) -> Any:
    # `verbose` would warn of the tokenizer's length limit; only the model's counts.
    return tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)["input_ids"]


def _places(part: list[int], whole: list[int]) -> Iterator[int]:
    return (start for start in range(len(whole) - len(part) + 1) if whole[start : start + len(part)] == part)


def _own_texts(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    for token in tokenizer.get_vocab():  # not before it is needed: a large one takes a quarter of a second
        yield tokenizer.convert_tokens_to_string([token])
