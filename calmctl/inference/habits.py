"""Habits: what a model says about how it likes to be decoded, put aside while our settings hold."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.inference.prompt import vocabulary_size


@contextmanager
def without_habits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Leave decoding to our settings: eval mode, and of the model's own (penalties, ...) only special tokens."""
    own, was_training = model.generation_config, model.training
    model.eval()
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=sorted(_eos_ids(own, tokenizer)) or None,
        pad_token_id=_pad_id(model, tokenizer),
    )
    try:
        yield
    finally:
        model.generation_config = own
        model.train(was_training)


def _eos_ids(settings: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    configured = settings.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, tokenizer.eos_token_id] if i is not None}


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return an id to fill masked positions with: any that the model has will do, for they are never attended.

    Tokenizers often have a padding token that was added to them and never to the model.
    """
    num_known = vocabulary_size(model)
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None and i < num_known), 0)
