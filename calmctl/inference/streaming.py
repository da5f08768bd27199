"""Streaming: the text of a completion as it is written."""

from collections.abc import Callable, Collection

from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from calmctl.inference.text import UNFINISHED, completion_of


class TextStream(BaseStreamer):
    """Passes on each new piece of a completion; together the pieces are the completion, to the letter.

    Prompt and completion are decoded together, so that a leading space survives, and a character whose bytes are not
    all there yet is held back.

    Args:
        on_text: receives the pieces.
        ends: ids that end the completion, after which nothing is passed on.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None], ends: Collection[int] = ()
    ) -> None:
        self.tokenizer, self.on_text, self.ends = tokenizer, on_text, ends
        self.prompt_ids: list[int] | None = None
        self.new_ids: list[int] = []
        self.passed_on = 0
        self.has_ended = False

    def put(self, value: Tensor) -> None:
        """Take the prompt's ids (1, seq) first, then new ids (1,) one step after the other."""
        ids = value.flatten().tolist()
        if self.prompt_ids is None:
            self.prompt_ids = ids
            return
        self.has_ended = self.has_ended or ids[0] in self.ends
        if self.has_ended:
            return
        self.new_ids += ids
        text = self._text()
        if not text.endswith(UNFINISHED):
            self._pass_on(text)

    def end(self) -> None:
        """Pass on what was held back."""
        self._pass_on(self._text())

    def _text(self) -> str:
        return completion_of(self.tokenizer, self.prompt_ids or [], self.new_ids)

    def _pass_on(self, text: str) -> None:
        if piece := text[self.passed_on :]:
            self.on_text(piece)
            self.passed_on = len(text)
