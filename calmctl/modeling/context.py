"""Context: how many tokens a model has positions for."""

from torch import nn
from transformers import PreTrainedModel

from calmctl.modeling import configuration
from calmctl.modeling.storing import StoredInParts

# Tables of learned positions may hold a few rows that stand for no position.
_SPARE_ROWS = 8


def context_length(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model can read, of a model of several bases the fewest; None = it does not say."""
    if isinstance(model, StoredInParts):
        known = [length for base in model.bases() if (length := context_length(base)) is not None]
        return min(known, default=None)
    said = configuration.context_length(model.config)
    if said is None:
        return None
    tables = (module for name, module in model.named_modules() if _is_position_table(name, module, said))
    return min([said, *map(_num_positions, tables)])


def _is_position_table(name: str, module: nn.Module, said: int) -> bool:
    own_name = name.rpartition(".")[2]
    is_named_so = "position" in own_name or own_name == "wpe"
    return is_named_so and isinstance(module, nn.Embedding) and 0 <= module.num_embeddings - said <= _SPARE_ROWS


def _num_positions(table: nn.Module) -> int:
    """Return how many rows of a table are positions: RoBERTa's begin behind that of its padding."""
    assert isinstance(table, nn.Embedding)
    behind_padding = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - int(getattr(table, "offset", behind_padding))
