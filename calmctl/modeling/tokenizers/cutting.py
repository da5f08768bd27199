"""How an aug's tokenizer cuts a text that comes piece by piece."""

import re
from typing import Any, Self

from tokenizers import Tokenizer, models

from calmctl.errors import UserError
from calmctl.modeling.tokenizers.boundaries import Boundaries
from calmctl.modeling.tokenizers.plain import text_tokenizer

# Inside of what stands for a byte: unigram models find its name in texts too.
IN_A_BYTE = re.compile(r"(?<=<)(?=0x[0-9A-F]{2}>)")


class Cutter:
    """How an aug's tokenizer cuts text, which comes piece by piece.

    Text stays text: no special token is added, and one that is spelt out is cut as any other characters are. Nothing
    is put before a text but a space at its beginning, by tokenizers that begin every text so. Threads may share it.
    """

    def __init__(self, tokenizer_json: str) -> None:
        """Read a tokenizer.

        Args:
            tokenizer_json: the `tokenizers` library's, of `PreTrainedTokenizerFast.backend_tokenizer.to_str()`.

        Raises:
            UserError: it cannot be read.
        """
        try:
            tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # the tokenizers library has no error of its own
            raise UserError(f"the tokenizer of an aug cannot be read: {error}; store the composition again") from error
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None  # a text has one cut
        self._tokenizer, self._before = text_tokenizer(tokenizer)
        self._boundaries = Boundaries.of(self._tokenizer)

    def cut(self, text: str, begins: bool) -> tuple[int, ...]:
        """Return the aug's token ids of a text.

        Args:
            begins: the text is the beginning of what the aug reads; else it goes on from something.
        """
        given = self._before + text if begins and text else text
        parts = IN_A_BYTE.split(given) if isinstance(self._tokenizer.model, models.Unigram) else [given]
        return tuple(
            token_id for part in parts for token_id in self._tokenizer.encode(part, add_special_tokens=False).ids
        )

    def safe_splits(self, text: str) -> int:
        """Return the last place in a text before which its cut stays the same, whatever follows; 0 where none is.

        The text before it and the text from there on, cut one by one, are the text cut at once.
        """
        return self._boundaries.last_in(text)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # nothing in it changes

    def __getstate__(self) -> tuple[str, str, Boundaries]:
        return self._tokenizer.to_str(), self._before, self._boundaries

    def __setstate__(self, state: tuple[str, str, Boundaries]) -> None:
        stored, self._before, self._boundaries = state
        self._tokenizer = Tokenizer.from_str(stored)
        self._tokenizer.encode_special_tokens = True  # this is not stored
