"""Stopping: where a completion ends, wherever token boundaries fall."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from calmctl.inference.text import UNFINISHED, completion_of, frame_ids, text_of
from calmctl.modeling.prompt_ids import ids_of

CONTEXT = 8  # tokens of a prompt: a completion reads after them as after all of it


def cut(text: str, stops: Iterable[str]) -> str:
    """Return a text up to the first of the stop strings in it."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def written_otherwise(tokenizer: PreTrainedTokenizerBase, stops: Iterable[str]) -> dict[str, str | None]:
    """Return the stop strings that do not survive encoding and decoding, with what they become; None = nothing to find.

    A model whose tokenizer reads `问题：` as `问题:` has never seen the one and ends its answer with the other. A line
    break that becomes a space is another matter: taken for a stop, it would end every completion at its first word.
    """
    written = {stop: _as_written(tokenizer, stop) for stop in stops}
    return {stop: form for stop, form in written.items() if form != stop}


def _as_written(tokenizer: PreTrainedTokenizerBase, stop: str) -> str | None:
    """Return what a stop string is after encoding and decoding; None where that would end other texts as well."""
    if stop == tokenizer.eos_token:
        return stop
    ids = ids_of(tokenizer, stop)
    if ids is None or not _unknown_ids(tokenizer).isdisjoint(ids):
        return None
    once = _read_back(tokenizer, stop)
    if stop in once or stop in _read_back(tokenizer, _within(tokenizer, stop)):
        return stop
    twice = _read_back(tokenizer, 2 * stop)
    form = twice[len(once) :] if twice.startswith(once) else once
    loses_space = bool(form) and any(stop[end].isspace() and not form[end].isspace() for end in (0, -1))
    return None if not form.strip() or loses_space or not frame_ids(tokenizer).isdisjoint(ids) else form


def _read_back(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return text_of(tokenizer, ids_of(tokenizer, text) or [])


def _within(tokenizer: PreTrainedTokenizerBase, stop: str) -> str:
    """Return a text with a stop string inside of it, for at its ends tokenizers drop spaces."""
    return 3 * stop if stop.strip() else stop.join(2 * [_own_word(tokenizer)])


def _own_word(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return something visible that the tokenizer gives back as it was."""
    words = (tokenizer.convert_tokens_to_string([token]).strip() for token in tokenizer.get_vocab())
    return next((word for word in words if word and _read_back(tokenizer, word) == word), "")


def _unknown_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that stand for whatever the tokenizer does not know."""
    backend = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    unknown = getattr(backend, "unk_token", None)
    return {tokenizer.unk_token_id, backend.token_to_id(unknown) if backend is not None and unknown else None} - {None}


class StopStrings(StoppingCriteria):
    """Ends a row whose completion holds a stop string.

    transformers' own criterion takes the vocabulary apart, which word-level tokenizers do not survive. Here the end of
    a row is decoded, but only after a token that may have been the last of a stop string: few are.

    Args:
        prompt_width: tokens of the padded prompts.
        may_end: what is known about tokens in this respect, kept for the next batch with the same stop strings.
        prompts: the ids of each, without padding; beams of one prompt stand beside each other.

    Attributes:
        ends: of rows that hold a stop string, how many new tokens there were when the first one was complete.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stops: tuple[str, ...],
        prompt_width: int,
        may_end: dict[int, bool],
        prompts: Sequence[Sequence[int]] = ((),),
    ) -> None:
        self.tokenizer, self.stops, self.prompt_width = tokenizer, stops, prompt_width
        self.contexts = [prompt[-CONTEXT:] for prompt in prompts]
        # A token adds a byte or more: enough of the end to hold any stop string, and the token that goes on after it.
        self.tail = max(len(stop.encode()) for stop in stops) + 8
        self.last_characters = {stop[-1] for stop in stops} | {UNFINISHED}
        # Decoders drop or add spaces between tokens: what ends in one cannot be told from a single token.
        self.any_token_may_end = any(stop[-1].isspace() and stop[-1] != "\n" for stop in stops)
        self.may_end = may_end
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Return which rows (batch,) have ended."""
        num_new = input_ids.shape[1] - self.prompt_width
        tails = input_ids[:, max(self.prompt_width, input_ids.shape[1] - self.tail) :].tolist()
        beams = len(tails) // len(self.contexts)
        ended = [False] * len(tails)
        for row, tail in enumerate(tails):
            if self._may_end(tail[-1]) and (num_new <= self.tail or self._may_hold_stop(tail)):
                # The end alone may read otherwise than after what stands before it: spaces, pieces of words.
                ids = input_ids[row, self.prompt_width :].tolist()
                ended[row] = self._stops_in(completion_of(self.tokenizer, self.contexts[row // beams], ids))
            if ended[row]:
                self.ends.setdefault(row, num_new)
        return torch.tensor(ended, device=input_ids.device)

    def _may_hold_stop(self, tail: list[int]) -> bool:
        text = text_of(self.tokenizer, tail)
        return self._stops_in(text) or UNFINISHED in text  # which may be the rest of a character that began before

    def _stops_in(self, text: str) -> bool:
        return any(stop in text for stop in self.stops)

    def _may_end(self, token: int) -> bool:
        if self.any_token_may_end:
            return True
        if token not in self.may_end:
            self.may_end[token] = not self.last_characters.isdisjoint(text_of(self.tokenizer, [token]))
        return self.may_end[token]
