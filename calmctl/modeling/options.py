"""The options of a composition: what augs read, how they cut text, the form of bridges. Loads without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from calmctl.errors import UserError
from calmctl.schema import meaning

AugReads = Literal["all", "prompt"]
AUG_READS = get_args(AugReads)
# Kinds of segmentation, in words.
SEGMENTATIONS = {"own": "its own tokenization of the text so far", "chunks": "every anchor token tokenized alone"}
# Values of the setting: a kind, or the first kind that works.
AUTO = "auto"
SegmentationSetting = Literal["auto", "own", "chunks"]
SEGMENTATION_SETTINGS = get_args(SegmentationSetting)


@dataclass(frozen=True)
class BridgeConfig:
    """Form of a bridge; by default the paper's, on standardised residual streams, with W_O = 0 at the start.

    Attributes:
        standardize: standardise both residual streams (`residual_streams.Standardize`) and scale the update to the
            anchor's stream, which pretrained models need; False gives the paper's plain form.
        share: with `standardize`, factor of the update beside the root mean square of the anchor's state.
        per_dimension: with `standardize`, scale each dimension of the update by its standard deviation in the anchor's
            stream too. Most dimensions of a stream may vary by a thirtieth of its root mean square only (Gemma 3), and
            an update as large as that in each of them drowns what they hold.
        num_heads: cross-attention heads; None = as many as the anchor has (the paper's choice).
        norm: RMS-normalise the projected aug states, so that keys and values do not inherit the scale of the aug's
            residual stream. W_P can then not be folded into W_K and W_V for decoding.
        rotary: rotate queries and keys by their positions, which helps a bridge to copy in order.
        recency: add a learned bias to queries and keys (as Qwen2 has), which with rotary positions favours the aug
            tokens read last: strongly in the first head, not at all in the last. Without it an untrained bridge
            averages over all aug tokens, which says less the longer the text is.
        gate: multiply the update by one learned scalar per bridge (Flamingo, arXiv 2204.14198, without its tanh). It
            starts at 0 and W_O at its usual initialisation, so the untrained model still equals the anchor: one number
            says how far a bridge is open, and all matrices learn at full speed once it has left 0.
        dropout: share of the update's entries that are dropped in training, against overfitting a small D_C.
        zero_init: start from W_O = 0 (with a gate: from a closed gate), so that the untrained composed model computes
            exactly what the anchor does; False gives the paper's plain initialisation.
    """

    standardize: bool = True
    share: float = 0.6
    per_dimension: bool = field(default=True, metadata=meaning(before=False))
    num_heads: int | None = None
    norm: bool = False
    rotary: bool = False
    recency: bool = False
    gate: bool = False
    dropout: float = 0.0
    zero_init: bool = True

    def __post_init__(self) -> None:
        if self.num_heads is not None and self.num_heads < 1:
            raise UserError(f"bridge.num_heads={self.num_heads} must be at least 1")
        if not 0 < self.share < float("inf"):
            raise UserError(f"bridge.share={self.share} must be a positive number")
        if not 0 <= self.dropout < 1:
            raise UserError(f"bridge.dropout={self.dropout} must lie in [0, 1)")
        if self.recency and not self.rotary:
            raise UserError(
                "bridge.recency=true needs bridge.rotary=true, by which positions are told apart; set both or neither"
            )

    @staticmethod
    def stored(values: Mapping[str, Any]) -> "BridgeConfig":
        """Return the form of a checkpoint's bridges; older ones lack settings that bridges then did not have.

        Raises:
            UserError: a setting is not known here.
        """
        if unknown := values.keys() - {each.name for each in fields(BridgeConfig)}:
            raise UserError(f"bridge.{min(unknown)} is not known; was it written by a later version of calmctl?")
        return BridgeConfig(**{"standardize": False, "per_dimension": False, **values})
