"""Generation: prompts in, completions out, in batches of similar length.

Rows are padded on the left with an explicit attention mask, from which the positions follow, so a completion does not
depend on the batch it was made in beyond float noise.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from calmctl.errors import UserError
from calmctl.inference.streaming import TextStream


@dataclass(frozen=True)
class Prompt:
    """What is to be completed.

    Attributes:
        max_new_tokens: tokens to generate at most.
        stop: the completion ends before the first of these strings.
    """

    text: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    Attributes:
        batch_size: prompts generated together.
        num_beams: 1 = no beam search.
        temperature: 0 = greedy; above, sampling.
        top_p: nucleus of sampling.
        seed: of sampling.
    """

    batch_size: int = 64
    num_beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UserError for settings out of range."""
        for name in ("batch_size", "num_beams"):
            if getattr(self, name) < 1:
                raise UserError(f"decoding.{name}={getattr(self, name)} must be at least 1")
        if self.temperature > 0 and self.num_beams > 1:
            raise UserError(f"decoding.num_beams={self.num_beams} needs decoding.temperature=0 (beams do not sample)")
        if self.temperature < 0:
            raise UserError(f"decoding.temperature={self.temperature} must not be negative (0 = greedy)")

    @property
    def name(self) -> str:
        """Return what a result says about the decoding."""
        if self.temperature > 0:
            return f"sampling(temperature={self.temperature}, top_p={self.top_p}, seed={self.seed})"
        return "greedy" if self.num_beams == 1 else f"beam({self.num_beams})"

    def arguments(self) -> dict[str, object]:
        """Return the arguments of `generate`."""
        if self.temperature > 0:
            return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return {"do_sample": False, "num_beams": self.num_beams}


@dataclass
class Throughput:
    """What has been generated so far."""

    done: int = 0
    tokens: int = 0
    on_batch: Callable[["Throughput"], None] = field(default=lambda _: None)


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    throughput: Throughput | None = None,
    on_text: Callable[[str], None] | None = None,
) -> list[str]:
    """Return the completion of every prompt, in the order of the prompts.

    Args:
        on_text: receives the text while it is written; for one prompt, without beams or stop strings.

    Raises:
        UserError: a prompt is empty, or does not fit into the model's context with its completion.
    """
    throughput = throughput or Throughput()
    ids = tokenizer([prompt.text for prompt in prompts], return_attention_mask=False)["input_ids"] if prompts else []
    _check_lengths(model, prompts, ids)
    completions = [""] * len(prompts)
    torch.manual_seed(decoding.seed)
    with _decoding_alone(model, tokenizer):
        for rows in _length_sorted(prompts, ids, decoding.batch_size):
            generated = _generate(model, tokenizer, [ids[row] for row in rows], prompts[rows[0]], decoding, on_text)
            for row, new_ids in zip(rows, generated, strict=True):
                completions[row] = _cut(_decode(tokenizer, ids[row], new_ids), prompts[row].stop)
                throughput.tokens += len(new_ids)
            throughput.done += len(rows)
            throughput.on_batch(throughput)
    return completions


@contextmanager
def _decoding_alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Leave decoding to our settings: eval mode, and of the model's own habits (penalties, ...) only special tokens."""
    own, was_training = model.generation_config, model.training
    model.eval()
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=sorted(_eos_ids(own, tokenizer)) or None,
        pad_token_id=_pad_id(tokenizer),
    )
    try:
        yield
    finally:
        model.generation_config = own
        model.train(was_training)


def _length_sorted(prompts: Sequence[Prompt], ids: Sequence[list[int]], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of row numbers, longest first; a batch shares how its completions end."""

    def ending(row: int) -> tuple[int, tuple[str, ...]]:
        return -prompts[row].max_new_tokens, prompts[row].stop

    order = sorted(range(len(prompts)), key=lambda row: (ending(row), -len(ids[row]), row))
    for _, rows in groupby(order, key=ending):
        group = list(rows)
        yield from (group[start : start + batch_size] for start in range(0, len(group), batch_size))


@torch.inference_mode()
def _generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    ending: Prompt,
    decoding: Decoding,
    on_text: Callable[[str], None] | None = None,
) -> list[list[int]]:
    """Return the new token ids of each prompt, up to and without the end-of-text token."""
    width, settings = max(map(len, prompts)), model.generation_config
    input_ids = torch.full((len(prompts), width), settings.pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
        attention_mask[row, width - len(prompt) :] = 1
    # A row that has ended is filled up with padding while the others go on.
    ends = {*(settings.eos_token_id or []), *([tokenizer.pad_token_id] if tokenizer.pad_token_id is not None else [])}
    stops = StoppingCriteriaList([_StopStrings(tokenizer, ending.stop, width)] if ending.stop else [])
    output = model.generate(  # type: ignore[operator]
        input_ids=input_ids.to(model.device),
        attention_mask=attention_mask.to(model.device),
        max_new_tokens=ending.max_new_tokens,
        stopping_criteria=stops,
        streamer=TextStream(tokenizer, on_text, ends) if on_text is not None else None,
        **decoding.arguments(),
    )
    rows = []
    for new_ids in output[:, width:].tolist():
        stop = next((place for place, token in enumerate(new_ids) if token in ends), len(new_ids))
        rows.append(new_ids[:stop])
    return rows


class _StopStrings(StoppingCriteria):
    """Ends a row whose completion holds a stop string, wherever token boundaries fall.

    transformers' own criterion takes the vocabulary apart, which word-level tokenizers do not survive.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...], prompt_width: int) -> None:
        self.tokenizer, self.stops, self.prompt_width = tokenizer, stops, prompt_width
        # A token adds a byte or more: enough of the end to hold any stop string, and the token that goes on after it.
        self.tail = max(len(stop.encode()) for stop in stops) + 8

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        tails = input_ids[:, max(self.prompt_width, input_ids.shape[1] - self.tail) :]
        texts = self.tokenizer.batch_decode(tails, skip_special_tokens=True)
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts], device=input_ids.device)


def _decode(tokenizer: PreTrainedTokenizerBase, prompt_ids: list[int], new_ids: list[int]) -> str:
    """Decode prompt and completion together and cut, so that a leading space of the completion survives."""
    prompt, whole = (str(tokenizer.decode(i, skip_special_tokens=True)) for i in (prompt_ids, prompt_ids + new_ids))
    return whole[len(prompt) :]


def _cut(text: str, stops: tuple[str, ...]) -> str:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return an id to fill masked positions with; which one is of no consequence, for they are never attended."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return candidate
    return 0


def _eos_ids(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = settings.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, tokenizer.eos_token_id] if i is not None}


def _check_lengths(model: PreTrainedModel, prompts: Sequence[Prompt], ids: Sequence[list[int]]) -> None:
    if empty := [place for place, prompt_ids in enumerate(ids) if not prompt_ids]:
        raise UserError(f"prompt {empty[0] + 1} is empty, and the tokenizer adds no beginning-of-text token")
    limit = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if not limit:
        return
    for prompt, prompt_ids in zip(prompts, ids, strict=True):
        if len(prompt_ids) + prompt.max_new_tokens > limit:
            raise UserError(
                f"a prompt of {len(prompt_ids)} tokens and {prompt.max_new_tokens} new ones exceed the model's context "
                f"of {limit}; use fewer shots or a smaller max_new_tokens"
            )
