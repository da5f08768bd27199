"""Stopping: where a completion ends, wherever token boundaries fall."""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from calmctl.inference.text import UNFINISHED, text_of


def cut(text: str, stops: tuple[str, ...]) -> str:
    """Return a text up to the first of the stop strings in it."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


class StopStrings(StoppingCriteria):
    """Ends a row whose completion holds a stop string.

    transformers' own criterion takes the vocabulary apart, which word-level tokenizers do not survive. Here the end of
    a row is decoded, but only after a token that may have been the last of a stop string: few are.

    Args:
        may_end: what is known about tokens in this respect, kept for the next batch with the same stop strings.

    Attributes:
        ends: of rows that hold a stop string, how many new tokens there were when the first one was complete.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...], prompt_width: int, may_end: dict[int, bool]
    ) -> None:
        self.tokenizer, self.stops, self.prompt_width = tokenizer, stops, prompt_width
        # A token adds a byte or more: enough of the end to hold any stop string, and the token that goes on after it.
        self.tail = max(len(stop.encode()) for stop in stops) + 8
        self.last_characters = {stop[-1] for stop in stops} | {UNFINISHED}
        # Decoders drop or add spaces between tokens: what ends in one cannot be told from a single token.
        self.any_token_may_end = any(stop[-1].isspace() and stop[-1] != "\n" for stop in stops)
        self.may_end = may_end
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Return which rows (batch,) have ended."""
        tails = input_ids[:, max(self.prompt_width, input_ids.shape[1] - self.tail) :].tolist()
        ended = [self._has_stop(ids) for ids in tails]
        for row, has_ended in enumerate(ended):
            if has_ended:
                self.ends.setdefault(row, input_ids.shape[1] - self.prompt_width)
        return torch.tensor(ended, device=input_ids.device)

    def _has_stop(self, ids: list[int]) -> bool:
        if not self._may_end(ids[-1]):
            return False
        text = text_of(self.tokenizer, ids)
        return any(stop in text for stop in self.stops)

    def _may_end(self, token: int) -> bool:
        if self.any_token_may_end:
            return True
        if token not in self.may_end:
            self.may_end[token] = not self.last_characters.isdisjoint(text_of(self.tokenizer, [token]))
        return self.may_end[token]
