"""Settings of a key-value build, and the constraints between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_builders.errors import UserError, require_at_least
from data_builders.kv.text import OPERATORS, NumberFormat, number_format
from data_builders.kv.tokenizers import CUTS

STRATA = ("held_out", "mixed", "held_in")
MAX_OPERANDS = 64
MAX_KEY_LENGTH = 12
MAX_AUGS = 2


@dataclass(frozen=True)
class KVDataConfig:
    """Settings of the key-value data (section 4.1 of the paper)."""

    seed: int = field(default=0, metadata={"may_differ": True})
    """Of the keys, the rows and the test set."""
    num_keys: int = 990
    """Keys, spread evenly over the values 1..num_values."""
    num_values: int = 99
    """Distinct values; equal to num_keys for unique values, as in the paper."""
    min_operands: int = 3
    """Fewest operands of an expression."""
    max_operands: int = 6
    """Most operands of an expression."""
    operators: str = "+-"
    """Any of `+`, `-` and `x`; `x` binds tighter."""
    number_format: str = "padded"
    """`padded` (fixed width, results signed) or `natural`."""
    held_in_fraction: float = 0.2
    """Share of the keys that D_C may use."""
    tokenizer: str | None = None
    """Null: random lowercase keys and a word-level tokenizer made for them. A path or a hub id (or `id@revision`): keys
    are tokens of that tokenizer."""
    anchor_cut: str | None = None
    """Null: one tokenizer for all models, as above. A name in CUTS: m_B gets a byte-level tokenizer with that cut."""
    aug_cuts: tuple[str, ...] = ()
    """With `anchor_cut`: the cut of each m_A's tokenizer. Several m_As share the keys evenly: each learns its own."""
    min_key_length: int = 2
    """Letters of the shortest random key."""
    max_key_length: int = 6
    """Letters of the longest random key."""
    num_aug_rows: int = 60_000
    """Rows of m_A's training file."""
    num_anchor_rows: int = 400_000
    """Rows of m_B's training file."""
    anchor_min_operands: int = 2
    """Fewest operands in the anchor's data, where a training curriculum starts."""
    context_fraction: float = 0.5
    """Share of the anchor's rows with an unrelated key expression before the numbers."""
    num_composition_rows: int = 120_000
    """Rows of each of the three D_C sets (dc_subs, dc_math, dc_mix)."""
    mix_stepwise: float = 0.75
    """Share of dc_mix that writes the numbers before the result."""
    mix_direct: float = 0.1
    """Share of dc_mix that writes the result alone."""
    mix_num_math: float = 0.15
    """Share of dc_mix that is NUM-MATH, and of NUM-MATH in the other two D_C sets."""
    subs_context: float = 0.3
    """Share of dc_subs that is NUM-MATH after an unrelated key expression, as in the anchor's own data. It preserves
    the anchor's arithmetic after a substitution without ever showing the value of a key expression."""
    aug_operand_weights: tuple[float, ...] | None = None
    """Weight of each operand count min..max in the rows; null: equal weights."""
    anchor_operand_weights: tuple[float, ...] | None = None
    """The same for anchor_min_operands..max_operands."""
    composition_operand_weights: tuple[float, ...] | None = None
    """Weight of each operand count min..max in the D_C sets; null: equal weights."""
    num_test_rows: int = 500
    """Test rows of each stratum at each operand count (and, with two m_As, for each group of m_As)."""

    def __post_init__(self) -> None:
        """Raise UserError if a setting is out of range or does not fit the others."""
        for name in ("aug_operand_weights", "anchor_operand_weights", "composition_operand_weights"):
            weights = getattr(self, name)
            if weights is not None:
                object.__setattr__(self, name, tuple(float(weight) for weight in weights))
        object.__setattr__(self, "aug_cuts", tuple(self.aug_cuts))
        self._check_ranges()
        self._check_cuts()
        self._check_keys()
        self._check_shares()
        self._check_tests()

    @property
    def num_held_in(self) -> int:
        """Number of held-in keys."""
        return round(self.held_in_fraction * self.num_keys)

    @property
    def num_augs(self) -> int:
        """Number of m_As that share the keys."""
        return max(1, len(self.aug_cuts))

    @property
    def operand_counts(self) -> range:
        """Operand counts of key expressions."""
        return range(self.min_operands, self.max_operands + 1)

    @property
    def anchor_operand_counts(self) -> range:
        """Operand counts of the anchor's number expressions."""
        return range(self.anchor_min_operands, self.max_operands + 1)

    @property
    def numbers(self) -> NumberFormat:
        """How this build writes numbers."""
        return number_format(self.number_format, self.num_values, self.max_operands, self.operators)

    def num_distinct(self, stratum: str, num_operands: int) -> int:
        """Return the number of distinct key expressions over one m_A's keys in a test stratum at an operand count."""
        held_in = self.num_held_in // self.num_augs
        held_out = (self.num_keys - self.num_held_in) // self.num_augs
        keys = {
            "held_in": math.perm(held_in, num_operands),
            "held_out": math.perm(held_out, num_operands),
            "mixed": math.perm(held_in + held_out, num_operands)
            - math.perm(held_in, num_operands)
            - math.perm(held_out, num_operands),
        }
        return keys[stratum] * len(self.operators) ** (num_operands - 1)

    def _check_ranges(self) -> None:
        require_at_least("seed", self.seed, 0)
        for name in (
            "num_values",
            "num_aug_rows",
            "num_anchor_rows",
            "num_composition_rows",
            "num_test_rows",
        ):
            require_at_least(name, getattr(self, name), 1)
        for name in ("min_operands", "anchor_min_operands"):
            require_at_least(name, getattr(self, name), 2)
            if getattr(self, name) > self.max_operands:
                raise UserError(f"{name}: {getattr(self, name)} is more than max_operands ({self.max_operands})")
        if self.max_operands > MAX_OPERANDS:
            raise UserError(f"max_operands: {self.max_operands} is more than {MAX_OPERANDS}; use fewer operands")
        unknown = [sign for sign in self.operators if sign not in OPERATORS]
        if unknown or not self.operators or len(set(self.operators)) != len(self.operators):
            raise UserError(f"operators: {self.operators!r} must be distinct signs out of {OPERATORS!r}")
        if self.number_format not in ("padded", "natural"):
            raise UserError(f"number_format: {self.number_format!r} is unknown; use 'padded' or 'natural'")
        require_at_least("min_key_length", self.min_key_length, 2)
        if self.max_key_length > MAX_KEY_LENGTH:
            raise UserError(f"max_key_length: {self.max_key_length} is more than {MAX_KEY_LENGTH}; use shorter keys")
        if self.max_key_length < self.min_key_length:
            raise UserError(
                f"max_key_length: {self.max_key_length} is less than min_key_length ({self.min_key_length})"
            )

    def _check_cuts(self) -> None:
        if self.anchor_cut is None and not self.aug_cuts:
            return
        if self.anchor_cut is None or not self.aug_cuts:
            raise UserError("anchor_cut, aug_cuts: m_B and m_A need a cut each; set both or neither")
        if self.tokenizer is not None:
            raise UserError(f"tokenizer: {self.tokenizer!r} is for all models, and anchor_cut gives each its own")
        for name, cuts in (("anchor_cut", (self.anchor_cut,)), ("aug_cuts", self.aug_cuts)):
            if unknown := [cut for cut in cuts if cut not in CUTS]:
                raise UserError(f"{name}: {unknown[0]!r} is unknown; use one of {', '.join(CUTS)}")
        if len(self.aug_cuts) > MAX_AUGS:
            raise UserError(f"aug_cuts: {len(self.aug_cuts)} are more than {MAX_AUGS}; use fewer")

    def _check_keys(self) -> None:
        if self.num_keys < self.max_operands:
            raise UserError(
                f"num_keys: {self.num_keys} is too few for expressions of {self.max_operands} distinct keys;"
                " use more keys or a smaller max_operands"
            )
        if self.num_values > self.num_keys:
            raise UserError(
                f"num_values: {self.num_values} is more than num_keys ({self.num_keys}); every value needs a key"
            )
        if not 0.0 < self.held_in_fraction < 1.0:
            raise UserError(f"held_in_fraction: {self.held_in_fraction} must lie between 0 and 1")
        for name, count in (("held-in", self.num_held_in), ("held-out", self.num_keys - self.num_held_in)):
            if count // self.num_augs < self.max_operands:
                each = "" if self.num_augs == 1 else f" for {self.num_augs} m_As"
                raise UserError(
                    f"held_in_fraction: {self.held_in_fraction} of {self.num_keys} keys leaves {count} {name}"
                    f" keys{each}, fewer than max_operands ({self.max_operands}); use more keys or another fraction"
                )

    def _check_shares(self) -> None:
        if not 0.0 <= self.context_fraction <= 1.0:
            raise UserError(f"context_fraction: {self.context_fraction} must lie between 0 and 1")
        if not 0.0 <= self.subs_context <= 1.0 - self.mix_num_math:
            raise UserError(
                f"subs_context: {self.subs_context} must lie between 0 and {1.0 - self.mix_num_math:g}"
                " (1 - mix_num_math); lower one of the two"
            )
        shares = (self.mix_stepwise, self.mix_direct, self.mix_num_math)
        if min(shares) < 0.0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise UserError(
                f"mix_stepwise, mix_direct, mix_num_math: {shares} sum to {sum(shares):g};"
                " shares must not be negative and must sum to 1"
            )
        _check_weights("aug_operand_weights", self.aug_operand_weights, self.operand_counts)
        _check_weights("anchor_operand_weights", self.anchor_operand_weights, self.anchor_operand_counts)
        _check_weights("composition_operand_weights", self.composition_operand_weights, self.operand_counts)

    def _check_tests(self) -> None:
        for stratum in STRATA:
            for count in self.operand_counts:
                distinct = self.num_distinct(stratum, count)
                if self.num_test_rows > distinct:
                    raise UserError(
                        f"num_test_rows: {self.num_test_rows} is more than the {distinct} distinct {stratum}"
                        f" expressions of {count} operands; use fewer test rows or more keys"
                    )


def _check_weights(name: str, weights: Sequence[float] | None, counts: range) -> None:
    if weights is None:
        return
    if len(weights) != len(counts):
        raise UserError(
            f"{name}: {len(weights)} weights for the {len(counts)} operand counts"
            f" {counts[0]}..{counts[-1]}; give one weight each"
        )
    if not all(0.0 <= weight < math.inf for weight in weights) or sum(weights) <= 0.0:
        raise UserError(f"{name}: {list(weights)} must be finite, not negative and not all zero")
