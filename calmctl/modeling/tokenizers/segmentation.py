"""Segmentation: which tokens an aug with a tokenizer of its own has read when the anchor stands at a token.

That is a function of the anchor's tokens so far and of nothing else: one anchor token after the other moves a state on,
in training and in generation alike, so that both read the same.

With `own`, the aug reads its own cut of the text so far. Text before a place that nothing behind can change is settled;
the rest is provisional: it is cut again when it grows, and tokens that are then others are replaced. With `chunks`, the
text of every anchor token is cut alone, and nothing is ever replaced. A character that is not finished waits.
"""

import codecs
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from calmctl.modeling.tokenizers.cutting import Cutter
from calmctl.modeling.tokenizers.token_bytes import TokenBytes

# Ways to read, in words.
SEGMENTATIONS = {"own": "its own cut of the text so far", "chunks": "every anchor token cut alone"}
# What may be asked for: one of them, or the first that works.
AUTO = "auto"
SEGMENTATION_SETTINGS = (AUTO, *SEGMENTATIONS)
# Characters without a place to settle at, after which text is settled all the same: of languages that put no spaces
# between words, a cut may then differ from that of the whole text.
MOST_PENDING, LEAST_PENDING = 96, 32
# Of what is read of a text: to be raised when that changes, so that nothing is taken for it that was found before.
VERSION = 1
# Moves that are remembered: most words come again.
MEMORY = 50_000


class State(NamedTuple):
    """What has to be known of an anchor's tokens so far to go on.

    Attributes:
        is_open: what the aug puts before a text has been read.
        has_text: some text has been read.
        is_inside: `pending` does not begin the text.
        undecoded: the beginning of a character that is not finished.
        pending: text that is provisional, and `tail` its tokens.
    """

    is_open: bool = False
    has_text: bool = False
    is_inside: bool = False
    undecoded: bytes = b""
    pending: str = ""
    tail: tuple[int, ...] = ()


START = State()


class Move(NamedTuple):
    """What an anchor token changes.

    Attributes:
        state: afterwards.
        kept: how many of the provisional tokens stay; the others are replaced.
        new: token ids that are read now.
        settled: how many of those kept and of the new ones, in this order, are provisional no more.
    """

    state: State
    kept: int
    new: tuple[int, ...]
    settled: int


class Position(NamedTuple):
    """Where an aug stands in one row.

    Attributes:
        depth: number of settled tokens.
        columns: of the provisional tokens, among all that the row has been fed with.
    """

    state: State = START
    depth: int = 0
    columns: tuple[int, ...] = ()


@dataclass
class Segments:
    """Aug tokens of one row in the order in which they are fed, those that were replaced included.

    Attributes:
        ids: token ids.
        born: index of the anchor token at which each was read first.
        died: index of the one at which it was replaced; `NEVER` if it was not.
        places: of each in its own text, from 0.
    """

    ids: list[int] = field(default_factory=list)
    born: list[int] = field(default_factory=list)
    died: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


NEVER = 2**31 - 1


class Segmenter:
    """Turns an anchor's tokens into those of one aug.

    Args:
        anchor: what the anchor's tokens stand for.
        cutter: how the aug cuts text.
        opening: ids that the aug's tokenizer puts before a text (a beginning-of-text token).
        kind: one of `SEGMENTATIONS`.
        markers: special tokens of the anchor (ends of text, chat markers) -> those that the aug is to read in their
            place. All others are a border in the aug's text, and nothing else.
        special: tokens of the anchor that are no text, beside those that `anchor` knows.
        sources: what identifies the two tokenizers.
    """

    def __init__(
        self,
        anchor: TokenBytes,
        cutter: Cutter,
        opening: Sequence[int] = (),
        kind: str = "own",
        markers: Mapping[int, Sequence[int]] | None = None,
        special: Iterable[int] = (),
        sources: Sequence[str] = (),
    ) -> None:
        self.anchor, self.cutter, self.kind = anchor, cutter, kind
        self.opening, self.sources = tuple(opening), tuple(sources)
        self.special = frozenset(special)
        self.markers = {token: tuple(ids) for token, ids in (markers or {}).items()}
        self._moves: dict[tuple[State, int], Move] = {}

    def identity(self) -> list[Any]:
        """Return, in JSON's terms, what decides how it reads."""
        markers = {str(token): ids for token, ids in sorted(self.markers.items())}
        return [VERSION, self.kind, self.opening, markers, sorted(self.special), *self.sources]

    def is_border(self, token_id: int) -> bool:
        """Tell whether a token of the anchor is no text: what is before it and what is behind it are cut apart."""
        return token_id in self.special or token_id in self.markers or self.anchor[token_id] is None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Segmenter":
        """Return the same one: nothing of it changes."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what is needed elsewhere; what is remembered is not."""
        return {**self.__dict__, "_moves": {}}

    def move(self, state: State, token_id: int) -> Move:
        """Return what one more anchor token changes."""
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
            history: where the aug stands after each anchor token before; those read now are added.
            column: of the first new aug token.
            is_read: False for anchor tokens that the aug does not read (padding).
            restarts: True where another document begins, of which nothing before is seen.

        Returns:
            The new aug tokens, and columns with the index of the anchor token at which they are replaced.
        """
        history = [] if history is None else history
        found = Segments()
        dead: list[tuple[int, int]] = []
        position = history[-1] if history else Position()
        # Where the columns of the document under way begin, and what of them was replaced.
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
        """Return the move to a longer provisional text, as much of which is settled as can be."""
        begins = not state.is_inside
        tail = self.cutter.cut(pending, begins)
        head, rest, split = self._settled(pending, begins, tail)
        tail = head + rest
        kept = _common(state.tail, tail)
        after = state._replace(pending=pending[split:], tail=rest, is_inside=state.is_inside or split > 0)
        return Move(after, kept, opening + tail[kept:], len(opening) + len(head))

    def _settled(self, text: str, begins: bool, tail: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Return the tokens of a text before and behind the last place where it can be settled, and the place."""
        split = self.cutter.safe_splits(text)
        if split:
            head, rest = self.cutter.cut(text[:split], begins), self.cutter.cut(text[split:], False)
            if head + rest == tail:
                return head, rest, split
        if len(text) <= MOST_PENDING:
            return (), tail, 0
        # A long stretch without such a place: where the cut stays as it is, if there is such a place, or anywhere.
        first = len(text) - LEAST_PENDING
        for split in range(first, first - LEAST_PENDING, -1):
            head, rest = self.cutter.cut(text[:split], begins), self.cutter.cut(text[split:], False)
            if head + rest == tail:
                return head, rest, split
        split = first
        return self.cutter.cut(text[:split], begins), self.cutter.cut(text[split:], False), split


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids two sequences begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (our, their) in pairs if our != their), min(len(one), len(other)))
