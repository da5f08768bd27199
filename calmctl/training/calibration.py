"""What bridges look at of the training examples before they are trained (see `ComposedModelForCausalLM.calibrate`)."""

from collections.abc import Iterator

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray

from calmctl.modeling import layers
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.placement import is_movable
from calmctl.processes.ranks import current_ranks
from calmctl.training.batches import Batches, alike
from calmctl.training.examples import Examples
from calmctl.training.settings import TrainSettings

CALIBRATION_STREAM = 0xCA11
# How much is looked at, and how many tokens at a time, padding included; a longer example comes alone.
EXAMPLES, TOKENS, AT_ONCE = 32, 8192, 2048


def calibrate_on(examples: Examples, model: ComposedModelForCausalLM, settings: TrainSettings, seed: int) -> None:
    """Calibrate a model on some examples that the seed draws, in every process on the same ones."""
    ranks = current_ranks()
    if is_movable(model) and settings.sharding == "none":
        torch.nn.Module.to(model, ranks.device)
    batches = Batches(examples, settings, seed, pad_id=0)
    device = layers.device_of(model.get_input_embeddings())
    model.calibrate(send_to_device(batches.collate(rows), device) for rows in chosen(examples.lengths, seed))
    # Processors that differ may round differently; what is read has to be the same everywhere.
    buffers = dict(model.bridges.named_buffers())
    found = ranks.from_first({name: buffer.cpu() for name, buffer in buffers.items()})
    for name, buffer in buffers.items():
        buffer.copy_(found[name])


def chosen(lengths: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each batch: examples of similar length, drawn at random, as many as there is room for."""
    drawn: list[int] = []
    for row in np.random.default_rng([seed, CALIBRATION_STREAM]).permutation(len(lengths)):
        if not drawn or lengths[[*drawn, row]].sum() <= TOKENS:
            drawn.append(int(row))
        if len(drawn) == EXAMPLES:
            break
    yield from alike(sorted(drawn, key=lambda row: lengths[row]), lengths, AT_ONCE)
