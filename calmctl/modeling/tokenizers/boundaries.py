"""Places at which a text can be split in two without changing its tokens, whatever follows."""

import re
from collections.abc import Iterable
from typing import Self
from unicodedata import combining, is_normalized

from tokenizers import Tokenizer

from calmctl.modeling.tokenizers.plain import settings_of, steps_of
from calmctl.modeling.tokenizers.token_names import byte_of_character

SPACE = "\u2581"  # SentencePiece writes spaces so; one in a text counts as a space
APOSTROPHES = "'\u2019"
# Two adjacent characters of a token: the first is no white space, the second no ASCII letter.
PAIR = re.compile(r"(?=(\S[^A-Za-z]))")


class Boundaries:
    """The places between characters where a tokenizer always splits.

    No token spans such a place, so merges on one side do not depend on the other. Tokenizers that first split texts by
    a pattern look ahead over white space, count digits, join punctuation to what follows and treat apostrophes
    specially. So a safe place is before white space that is a space or follows a letter or a number, or otherwise
    beside a letter or a number; never between numbers, before an ASCII letter or an apostrophe, or where accents may be
    composed.
    """

    def __init__(self, joined: Iterable[str]) -> None:
        """Take the pairs of characters that occur within tokens; bytes of partial characters are surrogates."""
        self._joined = frozenset(joined)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Find the pairs of characters in the tokens of a tokenizer."""
        names = "\0".join(tokenizer.get_vocab(with_added_tokens=True))
        if any(step["type"] == "ByteLevel" for step in steps_of(settings_of(tokenizer))):
            in_bytes = names.translate({ord(name): byte for name, byte in byte_of_character().items()})
            text = in_bytes.encode("latin-1", errors="ignore").decode(errors="surrogateescape")
        else:
            text = names.replace(SPACE, " ")
        added = (token.content for token in tokenizer.get_added_tokens_decoder().values())
        return cls(PAIR.findall("\0".join((text, *added))))

    def last_in(self, text: str) -> int:
        """Return the last place, in characters, at which a text can be split in two; 0 = none."""
        composed = is_normalized("NFC", text)
        for place in range(len(text) - 1, 0, -1):
            before, after = text[place - 1], text[place]
            if before.isspace() or SPACE in (before, after):
                continue
            if after.isspace():
                apart = after == " " or before.isalnum()
            else:
                apart = composed and _apart(before, after, text[place + 1 : place + 2])
            if apart and not any(pair in self._joined for pair in _pairs(before, after)):
                return place
        return 0


def _apart(before: str, after: str, next_one: str) -> bool:
    """Tell whether neither marks nor numbers join two characters, neither of which is white space."""
    return (
        bool(next_one)
        and not (after.isascii() and after.isalpha())
        and after not in APOSTROPHES
        and (before.isalpha() or after.isalpha() or before.isnumeric() or after.isnumeric())
        and not (before.isnumeric() and after.isnumeric())
        and not combining(after)
        and not combining(next_one)
        and is_normalized("NFC", after + next_one)
    )


def _pairs(before: str, after: str) -> set[str]:
    """Return how two characters may meet within a token: whole, or as last byte of one and first of the other."""
    befores = (before, before.encode()[-1:].decode(errors="surrogateescape"))
    afters = (after, after.encode()[:1].decode(errors="surrogateescape"))
    return {one + other for one in befores for other in afters}
