"""Likelihood: how many bits a model needs for texts after prompts, whatever it would write itself."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.inference.finite import NotFiniteError
from calmctl.inference.prompt import context_length
from calmctl.modeling.loss import IGNORED, labelled_rows_only
from calmctl.modeling.prompt_ids import prompt_ids


@torch.inference_mode()
def bits_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    texts: Sequence[str],
    batch_size: int,
) -> Iterator[tuple[int, float]]:
    """Yield the index of each pair and the bits (negative log2-likelihood) of its text after its prompt.

    Prompt and text are tokenised together, and what the prompt has alone is not counted, as in lm-evaluation-harness
    (`TemplateLM._encode_pair`). Bits over the UTF-8 bytes of a text do not depend on the tokenizer.

    Raises:
        UserError: a prompt and its text exceed the model's context.
        NotFiniteError: the likelihood of a text is NaN or zero.
    """
    wholes, starts = encoded_pairs(model, tokenizer, prompts, texts)
    order = sorted(range(len(wholes)), key=lambda place: -len(wholes[place]))
    for begin in range(0, len(order), batch_size):
        places = order[begin : begin + batch_size]
        bits = _batch_bits(model, [wholes[place] for place in places], [starts[place] for place in places])
        if bad := [place for place, value in zip(places, bits, strict=True) if not math.isfinite(value)]:
            raise NotFiniteError(model, "bits of the reference", bad[0])
        yield from zip(places, bits, strict=True)


def encoded_pairs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], texts: Sequence[str]
) -> tuple[list[list[int]], list[int]]:
    """Return the ids of each prompt with its text, and how many of them are the prompt's.

    Raises:
        UserError: a prompt and its text exceed the context of the model, which need not have weights.
    """
    wholes = prompt_ids(tokenizer, [prompt + text for prompt, text in zip(prompts, texts, strict=True)])
    starts = [len(ids) for ids in prompt_ids(tokenizer, prompts)]
    limit = context_length(model)
    if limit and (long := [place for place, ids in enumerate(wholes) if len(ids) > limit]):
        raise UserError(
            f"bits_per_byte: {len(long)} of {len(wholes)} prompts exceed the model's context of {limit} tokens with "
            "their references; use fewer shots (of the task text a smaller window)"
        )
    return wholes, starts


def _batch_bits(model: PreTrainedModel, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
    # Padding stands on the right: no token sees it, and none of it is counted.
    width = max(map(len, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention_mask, labels = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
    for row, (ids, start) in enumerate(zip(rows, starts, strict=True)):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        attention_mask[row, : len(ids)] = 1
        labels[row, start : len(ids)] = input_ids[row, start : len(ids)]
    device = model.device
    labels = labels.to(device)
    inputs = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
    # Augs that read prompts only would otherwise take the text for a part of it.
    if getattr(model.config, "aug_reads", None) == "prompt":
        inputs["prompt_lengths"] = torch.tensor(starts, device=device)
    with labelled_rows_only(model, labels) as targets:
        logits: Tensor = model(**inputs, use_cache=False).logits
    nats = F.cross_entropy(logits[0].float(), targets[0].to(logits.device), reduction="none")
    row_of = (labels[:, 1:] != IGNORED).nonzero()[:, 0].to(nats.device)
    return (torch.zeros(len(rows), device=nats.device).index_add_(0, row_of, nats) / math.log(2)).tolist()
