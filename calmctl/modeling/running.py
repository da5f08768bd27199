"""Running the decoder of a base on new tokens, as many as it has positions for."""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.configuration import context_length


def run_decoder(
    base: PreTrainedModel,
    decoder: PreTrainedModel,
    ids: Tensor,
    mask: Any,
    positions: Tensor,
    end: int,
    cache: Cache | None,
    wanted: dict[str, Any] | None = None,
) -> BaseModelOutputWithPast:
    """Run the decoder of a base, or the first layers of it, on new tokens.

    Args:
        mask: what the decoder takes as `attention_mask`.
        end: number of tokens that the longest row has then.

    Raises:
        UserError: the base has no positions for so many.
    """
    limit = context_length(base.config)
    arguments = layers.arguments_of(decoder, ids, mask, positions, cache, wanted)
    has_table = limit is not None and layers.has_positions_table(base) and not torch.compiler.is_compiling()
    is_beyond = has_table and int(positions.max()) >= cast(int, limit)  # also of positions that were given
    if (limit is None or end <= limit) and not is_beyond:
        return decoder(**arguments)
    # Many models read more than they were made for. Looked up on a GPU, a position beyond a table's end would take
    # the whole process with it; the rest tells by itself.
    number = int(positions.max()) + 1 if is_beyond else end
    beyond = UserError(
        f"a {type(base).__name__} reads {limit} tokens, and not the {number} that there are now: shorten the "
        "prompt or generate fewer"
    )
    if is_beyond:
        raise beyond
    try:
        return decoder(**arguments)
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError) as error:
        raise beyond from error
