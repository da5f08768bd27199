"""Stopping: where a completion ends, wherever token boundaries fall."""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

from calmctl.inference.streaming import UNFINISHED


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

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Return which rows (batch,) have ended."""
        ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        rows = [row for row, token in enumerate(input_ids[:, -1].tolist()) if self._may_end(token)]
        if rows:
            tails = input_ids[rows, max(self.prompt_width, input_ids.shape[1] - self.tail) :]
            texts = self.tokenizer.batch_decode(tails, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            ended[rows] = torch.tensor(
                [any(stop in text for stop in self.stops) for text in texts], device=input_ids.device
            )
        return ended

    def is_in(self, new_ids: list[int]) -> bool:
        """Tell whether a completion holds a stop string."""
        text = self.tokenizer.decode(new_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return any(stop in text for stop in self.stops)

    def _may_end(self, token: int) -> bool:
        if self.any_token_may_end:
            return True
        if token not in self.may_end:
            text = str(self.tokenizer.decode([token], skip_special_tokens=True, clean_up_tokenization_spaces=False))
            self.may_end[token] = not self.last_characters.isdisjoint(text)
        return self.may_end[token]
