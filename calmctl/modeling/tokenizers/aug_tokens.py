"""Aug tokens: what augs with their own tokenizer read of a batch, and which tokens may attend to which.

A column holds one aug token per row, in the order in which the aug is fed with them. Replaced tokens keep their columns
(see segmentation.py), and columns stay empty in rows with fewer tokens. Shapes: (batch, columns) for all columns,
(batch, new) for those that a forward pass adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from calmctl.modeling.tokenizers.segmentation import NEVER, Position, Segmenter, Segments


@dataclass(frozen=True)
class AugTokens:
    """The columns of one aug after a forward pass has read its anchor tokens.

    Attributes:
        ids: (batch, new) token ids to feed the aug with; arbitrary in empty columns.
        born: (batch, columns) index of the anchor token that each was read at; `NEVER` in empty columns.
        died: (batch, columns) index of the anchor token at which it was replaced; `NEVER` = not replaced.
        places: (batch, columns) position of each in its own text, from 0.
        past, length: number of anchor tokens before this pass, and in it.
    """

    ids: Tensor
    born: Tensor
    died: Tensor
    places: Tensor
    past: int
    length: int

    @classmethod
    def stacked(cls, columns: Tensor, length: int) -> "AugTokens":
        """Take what a collator has found: (batch, 4, columns) of ids, born, died and places."""
        ids, born, died, places = columns.unbind(1)
        return cls(ids, born, died, places, 0, length)

    @cached_property
    def has_gaps(self) -> bool:
        """Tell whether there are empty columns, or tokens that are replaced, now or before."""
        return not bool(((self.born != NEVER) & (self.died == NEVER)).all())

    @cached_property
    def longest(self) -> int:
        """Return the length of the longest text that has new tokens."""
        return int(self.new_places.max()) + 1 if self.num_new else 0

    @property
    def num_new(self) -> int:
        """Return the number of new columns."""
        return self.ids.shape[1]

    @property
    def num_columns(self) -> int:
        """Return the number of columns, cached ones included."""
        return self.born.shape[1]

    @property
    def new_places(self) -> Tensor:
        """Return the places (batch, new) of the new columns."""
        return self.places[:, self.num_columns - self.num_new :]

    @cached_property
    def is_plain(self) -> bool:
        """Tell whether new tokens see the same earlier columns: none is replaced after the first new anchor token."""
        return not bool(((self.died > self.past) & (self.died != NEVER)).any())

    def padding(self) -> Tensor | None:
        """Return which columns (batch, columns) new tokens may see if `is_plain`; None = all of them."""
        return (self.born != NEVER) & (self.died == NEVER) if self.has_gaps else None

    def allowed(self) -> Tensor:
        """Return which columns each new column may see (batch, new, columns): those not replaced when it was read."""
        new_born = self.born[:, -self.num_new :, None]
        seen = (self.born[:, None, :] <= new_born) & (self.died[:, None, :] > new_born) & (new_born != NEVER)
        first = self.num_columns - self.num_new
        columns = torch.arange(self.num_columns, device=self.born.device)
        own = columns[None, first:, None]
        # Empty columns see themselves: a softmax over nothing is NaN.
        return (seen & (columns <= own)) | (columns == own)

    def bridge_mask(self, prompt_lengths: Tensor | None) -> Tensor | None:
        """Return which columns each anchor token may see (batch, 1, seq, columns); None = see `Bridge.forward`.

        Args:
            prompt_lengths: (batch,), if augs read prompts only: later tokens see what the prompt's last token sees.
        """
        reached = torch.arange(self.past, self.past + self.length, device=self.born.device).expand(len(self.born), -1)
        if prompt_lengths is not None:
            reached = reached.minimum(prompt_lengths.to(reached.device)[:, None] - 1)
        elif self.is_causal:
            return None
        reached = reached[:, :, None]
        return ((self.born[:, None, :] <= reached) & (reached < self.died[:, None, :]))[:, None]

    @cached_property
    def is_causal(self) -> bool:
        """Tell whether a bridge needs no mask: token i sees the first i + 1 columns, or a single token sees all."""
        if self.length == 1:
            return bool((self.died == NEVER).all() and (self.born <= self.past).all())
        if self.past or self.num_columns != self.length:
            return False
        return bool(
            (self.died == NEVER).all() and (self.born == torch.arange(self.length, device=self.born.device)).all()
        )

    def anchor_positions(self, positions: Tensor) -> Tensor:
        """Return the position (batch, new) of the anchor token that each new column was read at, for rotary bridges.

        Args:
            positions: (batch, seq) of the anchor's new tokens.
        """
        index = (self.born[:, self.num_columns - self.num_new :] - self.past).clamp(0, self.length - 1)
        return positions.gather(1, index.to(positions.device))

    def to(self, device: torch.device) -> "AugTokens":
        """Return the same on another device."""
        facts = {"is_plain": self.is_plain, "is_causal": self.is_causal, "has_gaps": self.has_gaps}
        ids, born, died, places = (each.to(device) for each in (self.ids, self.born, self.died, self.places))
        moved = AugTokens(ids, born, died, places, self.past, self.length)
        moved.__dict__.update(facts, longest=self.longest)  # found before the move: on a GPU it would synchronise
        return moved


class AugHistory:
    """What one aug has read of every row of a batch, for a cache to continue, crop and reorder.

    Attributes:
        born, died, places: as in `AugTokens`, on the CPU.
    """

    def __init__(self) -> None:
        self.born = self.died = self.places = torch.zeros(0, 0, dtype=torch.long)
        # Per row, the aug's position after each anchor token.
        self._rows: list[list[Position]] = []

    def __deepcopy__(self, memo: dict) -> "AugHistory":
        """Return an independent copy."""
        other = AugHistory()
        other.born, other.died, other.places = self.born.clone(), self.died.clone(), self.places.clone()
        other._rows = [list(row) for row in self._rows]
        return other

    @torch.compiler.disable
    def read(
        self, segmenter: Segmenter, ids: Tensor, is_read: Tensor | None, documents: Tensor | None = None
    ) -> AugTokens:
        """Read new anchor tokens.

        Args:
            ids: (batch, seq).
            is_read: (batch, seq), False where the aug reads nothing: on padding, and after the prompt if it reads
                prompts only; None = it reads all.
            documents: (batch, seq), document index of each token of packed rows.
        """
        if not self._rows:
            self._rows = [[] for _ in range(len(ids))]
            self.born = self.died = self.places = torch.zeros(len(ids), 0, dtype=torch.long)
        past, column = len(self._rows[0]), self.born.shape[1]
        restarts = None
        if documents is not None:
            restarts = (documents.diff(dim=1, prepend=documents[:, :1]) != 0).tolist()
        reals = is_read.tolist() if is_read is not None else None
        found, replaced = [], []
        for row, token_ids in enumerate(ids.tolist()):
            here = [each[row] if each is not None else None for each in (reals, restarts)]
            segments, dead = segmenter.read(token_ids, self._rows[row], column, *here)
            found.append(segments)
            replaced += [(row, place, index) for place, index in dead if place < column]
        new = stacked(found, at_least=0 if column else 1)
        if replaced:
            rows, columns, indices = torch.tensor(replaced).unbind(1)
            self.died = self.died.clone()
            self.died[rows, columns] = indices
        held = (self.born, self.died, self.places)
        self.born, self.died, self.places = (
            torch.cat(pair, dim=1) for pair in zip(held, new.unbind(1)[1:], strict=True)
        )
        return AugTokens(new[:, 0], self.born, self.died, self.places, past, ids.shape[1])

    def columns_at(self, length: int) -> int:
        """Return the number of columns up to the last one that was read within the first `length` anchor tokens."""
        held = (self.born < length).any(0).nonzero()
        return int(held.max()) + 1 if len(held) else 0

    def crop(self, length: int) -> None:
        """Forget everything that was read after the first `length` anchor tokens."""
        self._rows = [row[:length] for row in self._rows]
        columns = self.columns_at(length)
        born, died, places = (each[:, :columns] for each in (self.born, self.died, self.places))
        gone = born >= length
        self.born, self.places = born.masked_fill(gone, NEVER), places.masked_fill(gone, 0)
        self.died = died.masked_fill(died >= length, NEVER)

    def join(self, other: "AugHistory", shifts: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Append the rows of another history.

        Args:
            shifts: for each of the two, the anchor tokens (padding) to add on the left; negative = to remove.

        Returns:
            The columns that were added on the left and on the right of each.
        """
        columns = max(self.born.shape[1], other.born.shape[1])
        pads = tuple((0, columns - each.born.shape[1]) for each in (self, other))
        parts = [each._padded(shift, pad[1]) for each, shift, pad in zip((self, other), shifts, pads, strict=True)]
        self.born, self.died, self.places = (torch.cat(pair) for pair in zip(*parts, strict=True))
        self._rows = [
            [Position()] * shift + row[max(-shift, 0) :]
            for each, shift in zip((self, other), shifts, strict=True)
            for row in each._rows
        ]
        return pads[0], pads[1]

    def _padded(self, shift: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return born, died and places after adding anchor tokens on the left, and empty columns on the right."""
        shifted = (each.where(each == NEVER, each + shift) for each in (self.born, self.died))
        born, died = (F.pad(each, (0, columns), value=NEVER) for each in shifted)
        return born, died, F.pad(self.places, (0, columns))

    def select(self, places: Sequence[int]) -> None:
        """Keep these rows of the batch, in this order; rows may repeat."""
        if self._rows:
            self._rows = [list(self._rows[place]) for place in places]
            self.born, self.died, self.places = (each[list(places)] for each in (self.born, self.died, self.places))

    def repeat(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        self.select([place for place in range(len(self._rows)) for _ in range(repeats)])


def stacked(rows: Sequence[Segments], at_least: int = 1) -> Tensor:
    """Return (batch, 4, columns) of ids, born, died and places, with empty columns at the end of shorter rows."""
    width = max([at_least, *(len(row.ids) for row in rows)])
    columns = torch.zeros(len(rows), 4, width, dtype=torch.long)
    columns[:, 1:3] = NEVER
    for found, row in zip(columns, rows, strict=True):
        found[:, : len(row.ids)] = torch.tensor([row.ids, row.born, row.died, row.places])
    return columns
