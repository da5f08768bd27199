"""Prompts: what is to be completed, and how it is made to fit into a model's context."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.context import AugContext, aug_contexts, context_length
from calmctl.modeling.prompt_ids import prompt_ids

OnOverflow = Literal["drop_shots", "fail"]
_CHUNK = 1024  # prompts tokenized at once: ids as Python numbers take nine times the memory they are kept in


@dataclass(frozen=True)
class Prompt:
    """What is to be completed.

    Attributes:
        text: the question, which is never shortened.
        max_new_tokens: tokens to generate at most.
        stop: the completion ends before the first of these strings.
        shots: worked examples that stand before the text, each with the separator that follows it.
        num_samples: completions wanted; more than one needs sampling.
        id: names the prompt where its samples are drawn; its whole text when empty.
    """

    text: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    shots: tuple[str, ...] = ()
    num_samples: int = 1
    id: str = ""

    @property
    def whole(self) -> str:
        """Return what the model reads."""
        return "".join(self.shots) + self.text


@dataclass(frozen=True)
class FittedPrompts:
    """Prompts as the model reads them.

    Attributes:
        prompts: with the shots that are left.
        ids: token ids of each.
        num_shortened: prompts that have lost shots.
    """

    prompts: list[Prompt]
    ids: list[array]
    num_shortened: int = 0


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    on_overflow: OnOverflow = "drop_shots",
) -> FittedPrompts:
    """Tokenize prompts; those that exceed the model's context with their completion lose shots, the first ones first.

    Raises:
        UserError: a prompt is empty or no valid text, has tokens that the model does not know, or exceeds the context
            without shots, or with them under `on_overflow="fail"`.
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
    _refuse(fitted, too_long, limit, "no shots are left to drop; use less decoding.max_new_tokens, or another model")
    return replace(fitted, num_shortened=num_shortened)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Return how many tokens a model has embeddings for."""
    return cast(nn.Embedding, model.get_input_embeddings()).num_embeddings


def _tokenized(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> Iterator[array]:
    for start in range(0, len(prompts), _CHUNK):
        texts = [prompt.whole for prompt in prompts[start : start + _CHUNK]]
        for place, text in enumerate(texts, start):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise UserError(f"prompt {place + 1} is no valid text ({error.reason} at {error.start})") from error
        yield from (array("i", ids) for ids in prompt_ids(tokenizer, texts))


def _too_long(fitted: FittedPrompts, limit: int | None, augs: Sequence[AugContext]) -> list[int]:
    """Return which prompts exceed the model's context, or that of an aug with a tokenizer of its own.

    How many tokens of its own an aug will read of what is written is not known; as many as the anchor writes are left.
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
