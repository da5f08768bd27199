"""Pairs of tokenizers, and composed models whose augs have tokenizers of their own."""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)  # fmt: skip

from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.tokenizers.own import own_tokenizer
from calmctl.modeling.tokenizers.segmentation import Move, Segmenter, State
from tests import tokenizer_families as families
from tests.models import opened

PAIRS: dict[str, tuple[Callable[[], PreTrainedTokenizerBase], Callable[[], PreTrainedTokenizerBase]]] = {
    "gpt2-llama3": (families.gpt2_style, families.llama3_style),
    "llama2-gemma": (families.llama2_style, families.gemma_style),
    "gemma-qwen": (families.gemma_style, families.qwen_style),
    "unigram-bytes": (families.unigram, families.tiny_bytes),
    "bytes-gpt2": (families.tiny_bytes, families.gpt2_style),
    "digits-llama2": (families.lone_digits, families.llama2_style),
    "qwen-unigram": (families.qwen_style, families.unigram),
    "llama3-prefixed": (families.llama3_style, families.prefixed_bytes),
}


@cache
def segmenter(pair: str, kind: str = "own") -> Segmenter:
    """Return what turns the tokens of a pair's first tokenizer into those of the second."""
    anchor, aug = PAIRS[pair]
    own = own_tokenizer(anchor(), aug())
    assert own is not None
    return own.segmenter(kind)


def base(kind: str, tokenizer: PreTrainedTokenizerBase, seed: int, **settings: object) -> PreTrainedModel:
    """Return a small random model with a tokenizer's vocabulary."""
    torch.manual_seed(seed)
    size = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    shape = {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
        "max_position_embeddings": 512,
    }  # fmt: skip
    grouped = {**shape, "num_key_value_heads": 2}
    models = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**size, **grouped, **settings)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**size, **grouped, sliding_window=7, **settings)),
        "gemma2": lambda: Gemma2ForCausalLM(
            Gemma2Config(**size, **grouped, head_dim=8, **{"sliding_window": 6, **settings})
        ),
        "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**size, **shape, **settings)),
        "bloom": lambda: BloomForCausalLM(BloomConfig(**size, hidden_size=32, n_layer=3, n_head=4, **settings)),
        "neo": lambda: GPTNeoForCausalLM(
            GPTNeoConfig(**size, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]])
        ),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(**size, n_embd=32, n_layer=3, n_head=4, **{"n_positions": 512, **settings})
        ),
    }
    model = models[kind]().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = torch.randn_like(parameter) * 0.15
    return model


def composed(
    pair: str = "gpt2-llama3", bases: tuple[str, str] = ("llama", "llama"), trained: bool = True, **settings: object
) -> ComposedModelForCausalLM:
    """Return a composed model of a pair of tokenizers; `trained` gives its bridges random outputs."""
    tokenizers = [make() for make in PAIRS[pair]]
    models = [base(kind, tokenizer, seed) for seed, (kind, tokenizer) in enumerate(zip(bases, tokenizers, strict=True))]
    model = compose(
        models[0], models[1], **{"every": 1, "share": 1.0, "rotary": True, "tokenizers": tokenizers, **settings}
    )
    return opened(model) if trained else model


def text_ids(pair: str, seed: int, rows: int = 2, length: int = 24) -> Tensor:
    """Return anchor tokens (rows, length) of random texts, some of which end inside a character."""
    tokenizer = PAIRS[pair][0]()
    texts = iter(families.random_texts(seed, 10_000))
    found: list[list[int]] = []
    while len(found) < rows:
        ids = tokenizer(next(texts), add_special_tokens=False)["input_ids"]
        while len(ids) < length:
            ids += tokenizer(next(texts), add_special_tokens=False)["input_ids"]
        found.append(ids[:length])
    return torch.tensor(found)


def any_ids(pair: str, seed: int, rows: int = 2, length: int = 24) -> Tensor:
    """Return anchor tokens (rows, length) at random: halves of characters, markers, bytes that are no text."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(PAIRS[pair][0]()), (rows, length), generator=generator)


class SameTokens(Segmenter):
    """Reads the anchor's tokens as they are."""

    def move(self, state: State, token_id: int) -> Move:
        return Move(state, 0, (token_id,), 1)


def forced(model: ComposedModelForCausalLM) -> ComposedModelForCausalLM:
    """Return a model whose aug shares the anchor's tokens, on the way of those that do not."""
    other = copy.deepcopy(model)
    tokenizer = families.gpt2_style()
    one = composed().model.segmenters[0]
    assert one is not None and tokenizer is not None
    other.config.segmentations = [{"kind": "chunks"}]
    other.model.segmenters = [SameTokens(one.anchor, one.cutter)]
    return other
