"""Run the decoder of a base on new tokens, with a clear error if it has too few positions."""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.configuration import declared_context


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
        mask: `attention_mask` of the decoder.
        end: number of tokens in the longest row afterwards.

    Raises:
        UserError: the base has too few positions.
    """
    limit = declared_context(base.config)
    arguments = layers.arguments_of(decoder, ids, mask, positions, cache, wanted)
    has_table = limit is not None and layers.has_positions_table(base) and not torch.compiler.is_compiling()
    is_beyond = has_table and int(positions.max()) >= cast(int, limit)  # given positions may exceed it too
    if (limit is None or end <= limit) and not is_beyond:
        return decoder(**arguments)
    # Many models can read beyond their context length, and others raise an error. But on a GPU a lookup beyond the end
    # of a position table would crash the whole process.
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
