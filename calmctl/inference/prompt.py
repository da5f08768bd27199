"""Prompts: tokenise them, fit them into the model's context, and group them into batches."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import cast

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.inference.settings import OnOverflow
from calmctl.modeling.context import AugContext, aug_contexts, context_length
from calmctl.modeling.prompt_ids import prompt_ids
from evals import Request

# A completion to generate: index of the prompt, and index among its samples.
Row = tuple[int, int]
_CHUNK = 1024  # prompts tokenised at once: lists of ids take nine times the memory of arrays


@dataclass(frozen=True)
class Group:
    """What prompts of one group have in common; prompts of a group begin together as far as possible."""

    max_new_tokens: int
    stop: tuple[str, ...]
    shots: tuple[str, ...]


@dataclass(frozen=True)
class FittedPrompts:
    """Prompts that fit into the model's context.

    Attributes:
        prompts: with the shots that are left.
        ids: token ids of each.
        num_shortened: number of prompts that have lost shots.
    """

    prompts: list[Request]
    ids: list[array]
    num_shortened: int = 0

    @cached_property
    def groups(self) -> list[Group]:
        """Return the group of each prompt."""
        return [Group(prompt.max_new_tokens, prompt.stop, prompt.shots) for prompt in self.prompts]


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Request],
    on_overflow: OnOverflow = "drop_shots",
) -> FittedPrompts:
    """Tokenise prompts; drop shots, first ones first, where a prompt with its completion exceeds the model's context.

    Raises:
        UserError: a prompt is empty or no valid text, has token ids that the model does not know, or exceeds the
            context without shots (under `on_overflow="fail"`, with them).
    """
    ids = list(_tokenized(tokenizer, prompts))
    if empty := [place for place, each in enumerate(ids) if not each]:
        raise UserError(f"prompt {empty[0] + 1} is empty, and the tokenizer adds no beginning-of-text token")
    num_known, largest = vocabulary_size(model), max(map(max, ids), default=0)
    if largest >= num_known:
        raise UserError(
            f"a prompt has token id {largest}, and the model knows {num_known} tokens: its tokenizer is not its own; "
            "save the model with the tokenizer it was trained with"
        )
    fitted, limit, augs = FittedPrompts(list(prompts), ids), context_length(model), aug_contexts(model)
    too_long = _too_long(fitted, limit, augs)
    if on_overflow == "fail":
        _refuse(fitted, too_long, limit, "use fewer shots, less decoding.max_new_tokens, or on_overflow=drop_shots")
    num_shortened = len(too_long)
    while shorter := [place for place in too_long if fitted.prompts[place].shots]:
        for place in shorter:
            fitted.prompts[place] = replace(fitted.prompts[place], shots=fitted.prompts[place].shots[1:])
        shortened = _tokenized(tokenizer, [fitted.prompts[place] for place in shorter])
        for place, each in zip(shorter, shortened, strict=True):
            ids[place] = each
        too_long = _too_long(fitted, limit, augs)
    less = (
        "shorter texts, or fewer new tokens" if any(each.max_new_tokens for each in fitted.prompts) else "shorter texts"
    )
    dropped = "no shots are left to drop; " if any(prompt.shots for prompt in prompts) else ""
    _refuse(fitted, too_long, limit, f"{dropped}use {less}, or another model")
    return replace(fitted, num_shortened=num_shortened)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Return the number of a model's token embeddings."""
    return cast(nn.Embedding, model.get_input_embeddings()).num_embeddings


def _tokenized(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Request]) -> Iterator[array]:
    for start in range(0, len(prompts), _CHUNK):
        texts = [prompt.text for prompt in prompts[start : start + _CHUNK]]
        for place, text in enumerate(texts, start):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"prompt {place + 1} is no valid text ({error.reason} at {error.start})") from error
        yield from (array("i", ids) for ids in prompt_ids(tokenizer, texts))


def _too_long(fitted: FittedPrompts, limit: int | None, augs: Sequence[AugContext]) -> list[int]:
    """Return which prompts exceed the model's context, or that of an aug with its own tokenizer.

    How many of its own tokens an aug will read of the completion is unknown; assume as many as the anchor's.
    """
    found = {place for place, each in enumerate(_needed(fitted)) if limit and each > limit}
    for aug in augs:
        found |= {
            place
            for place, (prompt, ids) in enumerate(zip(fitted.prompts, fitted.ids, strict=True))
            if aug.may_exceed([ids], prompt.max_new_tokens)[0] and aug.longest(ids) + prompt.max_new_tokens > aug.length
        }
    return sorted(found)


def _needed(fitted: FittedPrompts) -> list[int]:
    return [len(ids) + prompt.max_new_tokens for prompt, ids in zip(fitted.prompts, fitted.ids, strict=True)]


def _refuse(fitted: FittedPrompts, too_long: list[int], limit: int | None, advice: str) -> None:
    if too_long:
        needed = _needed(fitted)
        longest = max(too_long, key=lambda place: needed[place])
        whose = f"the model's context of {limit} tokens"
        if not limit or needed[longest] <= limit:
            whose = "the context of an aug, in its own tokens"
        raise UserError(
            f"{len(too_long)} of {len(fitted.prompts)} prompts exceed {whose} (the "
            f"longest has {len(fitted.ids[longest])} and asks for {fitted.prompts[longest].max_new_tokens} new ones); "
            f"{advice}"
        )


def queues(rows: Sequence[Row], fitted: FittedPrompts, equal_lengths: bool = False) -> Iterator[list[Row]]:
    """Yield all rows that may share a batch (same token limit and stop strings), longest prompts of each group first.

    Args:
        equal_lengths: a batch takes only prompts of equal length, even across groups.
    """
    order = {group: 0 if equal_lengths else number for number, group in enumerate(dict.fromkeys(fitted.groups))}

    def key(row: Row) -> tuple[int, tuple[str, ...], int, int, Row]:
        group = fitted.groups[row[0]]
        return -group.max_new_tokens, group.stop, order[group], -len(fitted.ids[row[0]]), row

    def shared(row: Row) -> tuple[int, tuple[str, ...], int]:
        group = fitted.groups[row[0]]
        return group.max_new_tokens, group.stop, len(fitted.ids[row[0]]) if equal_lengths else 0

    for _, queue in groupby(sorted(rows, key=key), shared):
        yield list(queue)


def shared_tokens(fitted: FittedPrompts, at_least: int) -> dict[Group, int]:
    """Return the number of tokens that all prompts of a group begin with, for groups with at least `at_least`."""
    members: dict[Group, list[int]] = {}
    for place, group in enumerate(fitted.groups):
        members.setdefault(group, []).append(place)
    lengths = {
        group: common_prefix([fitted.ids[place] for place in places])
        for group, places in members.items()
        if len(places) > 1
    }
    return {group: length for group, length in lengths.items() if length >= at_least}


def common_prefix(prompts: Sequence[array]) -> int:
    """Return how many tokens all prompts share at the beginning, leaving at least one token of each."""
    # In sorted order, the first and the last share no more than all do.
    pairs = enumerate(zip(min(prompts), max(prompts), strict=False))
    shortest = min(map(len, prompts))
    return min(next((place for place, (one, other) in pairs if one != other), shortest), shortest - 1)
