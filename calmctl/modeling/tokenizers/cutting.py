"""Tokenise text that arrives piece by piece with an aug's tokenizer ("cut" means tokenise)."""

import re
from typing import Any, Self

from tokenizers import Tokenizer, models

from calmctl.modeling.tokenizers.boundaries import Boundaries
from calmctl.modeling.tokenizers.plain import text_tokenizer

# Within a byte token spelt out in a text (`<0x0A>`), which unigram models would take for the byte.
IN_A_BYTE = re.compile(r"(?<=<)(?=0x[0-9A-F]{2}>)")


class Cutter:
    """An aug's tokenizer for text that arrives piece by piece.

    Text stays text: no special token is added, and one that is spelt out is tokenised like any other characters.
    Nothing is put before a text but a space at its beginning, by tokenizers that begin every text so. Threads may share
    it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take a tokenizer, which does not change."""
        if getattr(tokenizer.model, "dropout", None):
            tokenizer = Tokenizer.from_str(tokenizer.to_str())
            tokenizer.model.dropout = None  # the same text always has the same tokens
        self._tokenizer, self._before = text_tokenizer(tokenizer)
        self._boundaries = Boundaries.of(self._tokenizer)

    def cut(self, text: str, begins: bool) -> tuple[int, ...]:
        """Return the aug's token ids of a text.

        Args:
            begins: the text begins what the aug reads; otherwise it continues something.
        """
        given = self._before + text if begins and text else text
        parts = IN_A_BYTE.split(given) if isinstance(self._tokenizer.model, models.Unigram) else [given]
        return tuple(
            token_id for part in parts for token_id in self._tokenizer.encode(part, add_special_tokens=False).ids
        )

    def safe_splits(self, text: str) -> int:
        """Return the last place at which a text can be split, whatever follows; 0 = none.

        The tokens of the two parts are then the tokens of the whole text.
        """
        return self._boundaries.last_in(text)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # immutable

    def __getstate__(self) -> tuple[str, str, Boundaries]:
        return self._tokenizer.to_str(), self._before, self._boundaries

    def __setstate__(self, state: tuple[str, str, Boundaries]) -> None:
        stored, self._before, self._boundaries = state
        self._tokenizer = Tokenizer.from_str(stored)
        self._tokenizer.encode_special_tokens = True  # not part of the JSON
