"""Segmentation: which tokens an aug with its own tokenizer has read when the anchor is at a token.

This depends only on the anchor's tokens so far: each of them advances a state, in training as in generation, so that
both read the same.

With `own`, the aug's tokenizer is applied to the text so far. Text before a place that later text cannot change is
settled. The rest is provisional: it is tokenised again as it grows, and tokens that change are replaced. With `chunks`,
the text of every anchor token is tokenised alone, and nothing is ever replaced. The bytes of an incomplete character
wait for the rest.
"""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from calmctl.modeling.tokenizers.backend import Backend
from calmctl.modeling.tokenizers.cutting import Cutter
from calmctl.modeling.tokenizers.token_bytes import TokenBytes

# Provisional text of more than MOST_PENDING characters is settled without a safe place, except for the last
# LEAST_PENDING or more. In languages without spaces its tokens may then differ from those of the whole text.
MOST_PENDING, LEAST_PENDING = 96, 32
# Raise this when segmentation changes what augs read, so that results stored before are not reused.
VERSION = 1
# Number of moves to cache: most words come again.
MEMORY = 50_000


class State(NamedTuple):
    """State of segmentation after the anchor's tokens so far.

    Attributes:
        is_open: the aug has read the tokens that its tokenizer puts before a text.
        has_text: the aug has read some text.
        is_inside: `pending` does not begin the text.
        undecoded: the first bytes of an incomplete character.
        pending: provisional text, and `tail` its tokens.
    """

    is_open: bool = False
    has_text: bool = False
    is_inside: bool = False
    undecoded: bytes = b""
    pending: str = ""
    tail: tuple[int, ...] = ()


START = State()


class Move(NamedTuple):
    """The effect of one anchor token.

    Attributes:
        state: afterwards.
        kept: number of provisional tokens that stay; the others are replaced.
        new: token ids that are read now.
        settled: number of kept and new tokens, in this order, that are no longer provisional.
    """

    state: State
    kept: int
    new: tuple[int, ...]
    settled: int


class Position(NamedTuple):
    """How far an aug has read in one row.

    Attributes:
        depth: number of settled tokens.
        columns: column of each provisional token (see aug_tokens.py).
    """

    state: State = START
    depth: int = 0
    columns: tuple[int, ...] = ()


@dataclass
class Segments:
    """Aug tokens of one row in the order in which the aug is fed with them, replaced ones included.

    Attributes:
        ids: token ids.
        born: index of the anchor token at which each was read.
        died: index of the anchor token at which each was replaced; `NEVER` = not replaced.
        places: position of each in the aug's text, from 0.
    """

    ids: list[int] = field(default_factory=list)
    born: list[int] = field(default_factory=list)
    died: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


NEVER = 2**31 - 1


class Segmenter:
    """Maps an anchor's tokens to those of one aug.

    Args:
        anchor: bytes of the anchor's tokens.
        cutter: the aug's tokenizer for pieces of text.
        opening: ids that the aug's tokenizer puts before a text (a beginning-of-text token).
        kind: one of `SEGMENTATIONS`.
        markers: special tokens of the anchor (ends of text, chat markers) -> those that the aug reads in their place.
            All other special tokens only separate the text before from the text after.
        special: tokens of the anchor that are not text, besides those that `anchor` knows.
        sources: the two tokenizers.
    """

    def __init__(
        self,
        anchor: TokenBytes,
        cutter: Cutter,
        opening: Sequence[int] = (),
        kind: str = "own",
        markers: Mapping[int, Sequence[int]] | None = None,
        special: Iterable[int] = (),
        sources: Sequence[Backend] = (),
    ) -> None:
        self.anchor, self.cutter, self.kind = anchor, cutter, kind
        self.opening, self.sources = tuple(opening), tuple(sources)
        self.special = frozenset(special)
        self.markers = {token: tuple(ids) for token, ids in (markers or {}).items()}
        self._moves: dict[tuple[State, int], Move] = {}

    def identity(self) -> list[Any]:
        """Return everything that decides what the aug reads, as JSON values."""
        markers = {str(token): ids for token, ids in sorted(self.markers.items())}
        sources = [source.sha256 for source in self.sources]
        return [VERSION, self.kind, self.opening, markers, sorted(self.special), *sources]

    def is_border(self, token_id: int) -> bool:
        """Tell whether an anchor token is not text; the texts before and after it are tokenised separately."""
        return token_id in self.special or token_id in self.markers or self.anchor[token_id] is None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Segmenter":
        """Return the same object: only its cache ever changes."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the cached moves."""
        return {**self.__dict__, "_moves": {}}

    def move(self, state: State, token_id: int) -> Move:
        """Return the effect of one more anchor token."""
        key = (state, token_id)
        known = self._moves.get(key)
        if known is None:
            if len(self._moves) >= MEMORY:
                self._moves.clear()
            known = self._moves[key] = self._move(state, token_id)
        return known

    def read(
        self,
        token_ids: Sequence[int],
        history: list[Position] | None = None,
        column: int = 0,
        is_read: Sequence[bool] | None = None,
        restarts: Sequence[bool] | None = None,
    ) -> tuple[Segments, list[tuple[int, int]]]:
        """Read anchor tokens of one row.

        Args:
            history: the aug's position after each earlier anchor token; those of the new ones are appended.
            column: of the first new aug token.
            is_read: False for anchor tokens that the aug does not read (padding).
            restarts: True where another document begins, which sees nothing before it.

        Returns:
            The new aug tokens, and pairs (column, index of the anchor token at which it is replaced).
        """
        history = [] if history is None else history
        found = Segments()
        dead: list[tuple[int, int]] = []
        position = history[-1] if history else Position()
        # Where the current document begins in the columns and in `dead`.
        begin, num_dead = 0, 0
        for offset, token_id in enumerate(token_ids):
            index = len(history)
            if restarts is not None and restarts[offset]:
                gone = {place for place, _ in dead[num_dead:]}
                end = column + len(found.ids)
                dead += [(place, index) for place in range(begin, end) if place not in gone]
                position, begin, num_dead = Position(), end, len(dead)
            if is_read is None or is_read[offset]:
                depth, columns = position.depth, position.columns
                move = self.move(position.state, token_id)
                dead += [(place, index) for place in columns[move.kept :]]
                first = column + len(found.ids)
                columns = columns[: move.kept] + tuple(range(first, first + len(move.new)))
                position = Position(move.state, depth + move.settled, columns[move.settled :])
                found.ids += move.new
                found.born += [index] * len(move.new)
                found.places += range(depth + move.kept, depth + move.kept + len(move.new))
            history.append(position)
        found.died = [NEVER] * len(found.ids)
        for place, index in dead:
            if place >= column:
                found.died[place - column] = index
        return found, dead

    def _move(self, state: State, token_id: int) -> Move:
        opening = () if state.is_open else self.opening
        data = self.anchor[token_id] if not self.is_border(token_id) else None
        if data is None:
            new = opening + self.markers.get(token_id, ())
            closed = State(True, state.has_text, state.is_inside or bool(state.pending))
            return Move(closed, len(state.tail), new, len(state.tail) + len(new))
        if not state.has_text and self.anchor.has_dummy_space:
            data = data.removeprefix(b" ")
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        text = decoder.decode(state.undecoded + data)
        state = state._replace(is_open=True, has_text=True, undecoded=decoder.getstate()[0])
        if self.kind == "chunks":
            new = opening + (self.cutter.cut(text, not state.is_inside) if text else ())
            return Move(state._replace(is_inside=state.is_inside or bool(text)), 0, new, len(new))
        if not text:
            return Move(state, len(state.tail), opening, len(opening))
        return self._cut_again(state, state.pending + text, opening)

    def _cut_again(self, state: State, pending: str, opening: tuple[int, ...]) -> Move:
        """Return the move to a longer provisional text, settling as much of it as possible."""
        begins = not state.is_inside
        tail = self.cutter.cut(pending, begins)
        head, rest, split = self._settled(pending, begins, tail)
        tail = head + rest
        kept = _common(state.tail, tail)
        after = state._replace(pending=pending[split:], tail=rest, is_inside=state.is_inside or split > 0)
        return Move(after, kept, opening + tail[kept:], len(opening) + len(head))

    def _settled(self, text: str, begins: bool, tail: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Return the tokens before and after the last place where a text can be settled, and that place."""
        split = self.cutter.safe_splits(text)
        if split:
            head, rest = self.cutter.cut(text[:split], begins), self.cutter.cut(text[split:], False)
            if head + rest == tail:
                return head, rest, split
        if len(text) <= MOST_PENDING:
            return (), tail, 0
        # Too long without a safe place: settle where the tokens stay the same, or else anywhere.
        first = len(text) - LEAST_PENDING
        for split in range(first, first - LEAST_PENDING, -1):
            head, rest = self.cutter.cut(text[:split], begins), self.cutter.cut(text[split:], False)
            if head + rest == tail:
                return head, rest, split
        split = first
        return self.cutter.cut(text[:split], begins), self.cutter.cut(text[split:], False), split


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (our, their) in pairs if our != their), min(len(one), len(other)))
