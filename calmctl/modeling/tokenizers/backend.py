"""A tokenizer of the `tokenizers` library with what is derived from it, each once and only when it is asked for.

Of a vocabulary of 262,000 tokens every one of these takes from half a second to a second.
"""

import hashlib
import json
from functools import cached_property
from typing import Any, Self

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from calmctl.modeling.tokenizers.cutting import Cutter
from calmctl.modeling.tokenizers.same_ids import PARTS
from calmctl.modeling.tokenizers.token_bytes import TokenBytes, backend_of
from calmctl.processes.garbage import without_collection


class Backend:
    """A tokenizer that does not change any more.

    Attributes:
        tokenizer: as the library reads it.
        name: of the tokenizer's model, for errors.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        self.tokenizer, self.name = tokenizer, name

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, name: str) -> Self:
        """Return the backend of a tokenizer.

        Raises:
            UserError: it has none.
        """
        return cls(backend_of(tokenizer, name), name)

    @classmethod
    def read(cls, stored: str, name: str) -> Self:
        """Return a tokenizer that was stored as JSON; raise ValueError if it is none."""
        try:
            backend = cls(Tokenizer.from_str(stored), name)
        except Exception as error:  # the tokenizers library raises bare `Exception`
            raise ValueError(str(error)) from error
        backend.__dict__["json"] = stored  # other versions of the library may write it otherwise
        return backend

    @cached_property
    def json(self) -> str:
        """Return the tokenizer as JSON."""
        return self.tokenizer.to_str()

    @cached_property
    def sha256(self) -> str:
        """Return a hash of the parts that decide which ids a text becomes."""
        return tokenizer_sha256(self.json)

    @cached_property
    def token_bytes(self) -> TokenBytes:
        """Return the bytes of the tokens.

        Raises:
            UserError: the tokenizer does not reproduce texts.
        """
        return TokenBytes.of(self.tokenizer, self.name)

    @cached_property
    def cutter(self) -> Cutter:
        """Return what tokenises text that arrives piece by piece."""
        return Cutter(self.tokenizer)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it does not change

    def __getstate__(self) -> tuple[str, str]:
        return self.json, self.name

    def __setstate__(self, state: tuple[str, str]) -> None:
        stored, self.name = state
        self.tokenizer = Tokenizer.from_str(stored)
        self.__dict__["json"] = stored


@without_collection()
def tokenizer_sha256(stored: str) -> str:
    """Return a hash of those parts of a tokenizer, given as JSON, that decide which ids a text becomes."""
    parts = {name: value for name, value in json.loads(stored).items() if name in PARTS}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
