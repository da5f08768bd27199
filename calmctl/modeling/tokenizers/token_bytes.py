"""The bytes of text that each token id stands for, and vocabularies sorted by these bytes."""

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.tokenizers.plain import added_tokens, ids_of, plain_tokenizer, text_tokenizer
from calmctl.modeling.tokenizers.same_ids import PROBES
from calmctl.modeling.tokenizers.token_names import KINDS, Kind

# Texts that a tokenizer has to reproduce byte for byte, besides those that tokenizers are compared on.
TEXTS = (
    *PROBES, "", " ", "\n", "   three before", "after  \n",
    "\tif x:\r\n\t\ty = 1\r\n\r\n", "{\n        'a': [1,  2]\n\n\n}",
    "q\u0323\u0307 e\u0301\u0302 A\u030a", "১২৩ বাংলা", "தமிழ்", "አማርኛ", "ქართული", "Ẹ̀kọ́ ọmọ",
    "🏳️\u200d🌈 👩🏽\u200d🚀 🇯🇵", "∑ x² ≤ √2 → ∞", "12345678901 3.14159", "ÀÉÎ ẞß İı", "𝔘𠀀", "<a href='b'>&amp;</a>",
)  # fmt: skip
NFC_WARNING = "composes accents before it cuts (NFC): texts are compared and read in that form"
LONGEST_SHOWN = 60


class TokenBytes:
    """The bytes of UTF-8 that each token id of a tokenizer stands for.

    Attributes:
        has_dummy_space: the tokenizer puts a space before every text.
        warning: what the tokenizer changes in texts though it is accepted, in a sentence; else empty.
    """

    def __init__(self, tokens: Sequence[bytes | None], has_dummy_space: bool = False, warning: str = "") -> None:
        """Take the bytes of each token by id; None = not text."""
        self._tokens = tuple(tokens)
        self.has_dummy_space = has_dummy_space
        self.warning = warning

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase | Tokenizer, name: str) -> Self:
        """Find the bytes of a tokenizer's tokens, and check them on texts in many scripts.

        Args:
            name: of the tokenizer's model, for errors.

        Raises:
            UserError: the tokenizer loses or changes part of a text, or is not one of the `tokenizers` library.
        """
        backend = tokenizer if isinstance(tokenizer, Tokenizer) else backend_of(tokenizer, name)
        try:
            cuts = _Cuts(plain_tokenizer(backend), *text_tokenizer(backend))
        except UserError:
            raise
        except Exception as error:  # the tokenizers library raises bare `Exception`
            raise UserError(f"the tokenizer of {name} cannot be taken over: {error}; use another model") from error
        tokens = _Tokens(cuts, getattr(tokenizer, "all_special_ids", ()))
        trials = [_tried(kind, tokens, cuts) for kind in KINDS]
        best = max(reversed(trials), key=lambda trial: trial.num_kept)
        if best.lost:
            raise UserError(
                f"the tokenizer of {name} does not keep texts: {best.lost}; compose models whose tokenizers keep every "
                "byte (byte-level ones, or pieces with byte fallback), or models that share a tokenizer"
            )
        warning = f"the tokenizer of {name} {NFC_WARNING}" if best.composes else ""
        return cls(tokens.table(best.kind), bool(cuts.before), warning)

    def __len__(self) -> int:
        """Return one more than the largest id."""
        return len(self._tokens)

    def __getitem__(self, token_id: int) -> bytes | None:
        """Return the bytes of a token; None for special tokens and unknown ids."""
        return self._tokens[token_id] if 0 <= token_id < len(self._tokens) else None

    def text_bytes(self, token_ids: Iterable[int]) -> bytes:
        """Return the bytes of a whole text, without the space that the tokenizer puts before it."""
        text = b"".join(self[token_id] or b"" for token_id in token_ids)
        return text[1:] if self.has_dummy_space and text.startswith(b" ") else text


def backend_of(tokenizer: PreTrainedTokenizerBase, name: str) -> Tokenizer:
    """Return the tokenizer of the `tokenizers` library inside another one; `name` is that of its model, for errors.

    Raises:
        UserError: there is none.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise UserError(
            f"the tokenizer of {name} ({type(tokenizer).__name__}) is not one of the `tokenizers` library, so that "
            "its tokens cannot be told as bytes; save it as tokenizer.json, or compose models that share one"
        )
    return backend


class _Cuts(NamedTuple):
    """A tokenizer as it is, one for texts that continue others, and what the latter needs before a text that begins."""

    whole: Tokenizer
    inside: Tokenizer
    before: str

    def to_keep(self) -> Iterator[tuple[str, Tokenizer, str, tuple[str, ...]]]:
        """Yield checks: a text, the tokenizer to use, its input, and the texts that its tokens may stand for."""
        added = [token.content for token in added_tokens(self.whole).values()]
        for text in TEXTS:
            begun = self.before + text
            # Some tokenizers put no space before a text that is empty or begins with one; some also put one after every
            # added token.
            if not self.before or not any(content in text for content in added):
                yield text, self.whole, text, (begun, text) if text[:1] in ("", " ") else (begun,)
            yield text, self.inside, begun, (begun,)
            yield text, self.inside, text, (text,)


class _Trial(NamedTuple):
    """How a kind of vocabulary fits: number of texts that it keeps, the first failure, whether accents are composed."""

    kind: Kind
    num_kept: int
    lost: str
    composes: bool


class _Tokens:
    """The tokens of a tokenizer as its vocabulary writes them."""

    def __init__(self, cuts: _Cuts, special_ids: Iterable[int]) -> None:
        added = added_tokens(cuts.whole)
        self._added = added.keys()
        self._names = {token_id: name for name, token_id in cuts.whole.get_vocab(with_added_tokens=True).items()}
        markers = {token_id for token_id, token in added.items() if token.special}
        # Special tokens that are also ordinary characters or words of the vocabulary are text.
        self._markers = {
            token_id
            for token_id in markers.union(special_ids)
            if token_id in self._names and ids_of(cuts.inside, self._names[token_id]) != [token_id]
        }

    def bytes_of(self, token_id: int, kind: Kind) -> bytes | None:
        """Return the bytes of a token in a vocabulary of this kind; None = not text."""
        if token_id in self._markers or token_id not in self._names:
            return None
        return kind(self._names[token_id], token_id in self._added)

    def table(self, kind: Kind) -> list[bytes | None]:
        """Return the bytes of every token, by id."""
        found: list[bytes | None] = [None] * (max(self._names, default=-1) + 1)
        for token_id, name in self._names.items():
            if token_id not in self._markers:
                found[token_id] = kind(name, token_id in self._added)
        return found


def _tried(kind: Kind, tokens: _Tokens, cuts: _Cuts) -> _Trial:
    composes = False
    num_kept = 0
    for text, tokenizer, given, allowed in cuts.to_keep():
        try:
            ids = tokenizer.encode(given, add_special_tokens=False).ids
        except Exception as error:  # the tokenizers library raises bare `Exception`
            return _Trial(kind, num_kept, f"{_shown(text)} cannot be cut ({error})", composes)
        written = b"".join(tokens.bytes_of(token_id, kind) or b"" for token_id in ids).decode(errors="replace")
        if written not in allowed:
            if _composed(written) not in map(_composed, allowed):
                written = written if text.startswith(" ") else written.removeprefix(cuts.before)
                return _Trial(kind, num_kept, f"{_shown(text)} comes back as {_shown(written)}", composes)
            composes = True
        num_kept += 1
    return _Trial(kind, num_kept, "", composes)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _shown(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."


class ByteVocabulary:
    """A model's tokens sorted by their bytes, so that tokens with a common prefix are adjacent.

    Args:
        name: of the tokenizer's model, for errors.
        size: number of tokens that the model has logits for.

    Attributes:
        ids: (n,) of the tokens that are text, sorted.
        end_ids: tokens that end a text.

    Raises:
        UserError: the bytes of the tokenizer's tokens cannot be found.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_ids: Sequence[int], size: int, name: str) -> None:
        self._bytes = TokenBytes.of(tokenizer, name)
        self.end_ids = [token for token in end_ids if token < size]
        texts = [(self._bytes[token] or b"", token) for token in range(min(len(self._bytes), size))]
        texts = sorted(pair for pair in texts if pair[0] and pair[1] not in self.end_ids)
        self._texts, self.ids = [text for text, _ in texts], torch.tensor([token for _, token in texts])
        self._known = frozenset(self.ids.tolist())
        self._longest = max(map(len, self._texts))
        self._borders: dict[bytes, NDArray[np.int64]] = {}

    def text(self, token: int) -> bytes:
        """Return the bytes of a token; empty if it is not text or ends a text."""
        return (self._bytes[token] or b"") if token in self._known else b""

    def borders(self, begun: bytes) -> NDArray[np.int64]:
        """Return (258,) indices: where the prefix `begun` starts, where it continues with each byte, and the end."""
        if begun not in self._borders:
            low = bisect_left(self._texts, begun)
            found, high = [low], len(self._texts)
            for byte in range(256):
                low = bisect_left(self._texts, begun + bytes([byte]), low, high)
                found.append(low)
            # The end is the first token without the prefix.
            stem = begun.rstrip(b"\xff")
            after = stem[:-1] + bytes([stem[-1] + 1]) if stem else None
            found.append(bisect_left(self._texts, after, low, high) if after else high)
            self._borders[begun] = np.array(found)
        return self._borders[begun]

    def cut(self, text: bytes) -> list[int]:
        """Return tokens of a text, always the longest that matches.

        Raises:
            UserError: no token matches.
        """
        found = []
        while text:
            for length in range(min(len(text), self._longest), 0, -1):
                place = bisect_left(self._texts, text[:length])
                if place < len(self._texts) and self._texts[place] == text[:length]:
                    found.append(int(self.ids[place]))
                    text = text[length:]
                    break
            else:
                raise UserError(f"no token writes the byte {text[0]:#04x}; mix models whose tokenizers have all bytes")
        return found
