"""What must hold of a composed model whose aug has a tokenizer of its own, for every family as anchor and as aug."""

import copy
from functools import cache

import pytest
import torch
from torch import Tensor

from calmctl.modeling.calling import CACHE
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.layers import decoder_layers
from calmctl.modeling.selfcheck import check_composition
from tests.families import FAMILIES, WINDOW
from tests.models import logits, opened
from tests.own_tokenizers import PAIRS, any_ids, text_ids

TOKENIZERS = "bytes-gpt2"
NAMES = list(FAMILIES)
# As an aug MPT is refused: see tests/test_own_tokenizers.py.
AUGS = [name for name in NAMES if name not in ("Llama", "MPT")]
CASES = [*((name, "Llama") for name in NAMES), *(("Llama", name) for name in AUGS), ("GPT-2", "Gemma 3")]
LENGTH = 22
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("names", CASES, ids="+".join)]


@cache
def untrained(names: tuple[str, str]) -> ComposedModelForCausalLM:
    """Connect first layers, and the aug's last but one (so that its last is never run) to the anchor's last."""
    tokenizers = [make() for make in PAIRS[TOKENIZERS]]
    anchor, aug = (
        FAMILIES[name](seed, vocabulary=len(tokenizer))
        for seed, (name, tokenizer) in enumerate(zip(names, tokenizers, strict=True), 1)
    )
    ends = len(decoder_layers(aug)) - 2, len(decoder_layers(anchor)) - 1
    return compose(anchor, aug, [[0, 0], ends], tokenizers=tokenizers, rotary=True)


@cache
def trained(names: tuple[str, str]) -> ComposedModelForCausalLM:
    return opened(copy.deepcopy(untrained(names)))


@cache
def ids() -> Tensor:
    return torch.cat([text_ids(TOKENIZERS, 1, 2, LENGTH), any_ids(TOKENIZERS, 1, 1, LENGTH)])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_closed_bridges_leave_the_anchor_as_it_is(names):
    assert torch.equal(logits(untrained(names), ids()), logits(untrained(names).anchor, ids()))
    assert (logits(trained(names), ids()) - logits(trained(names).anchor, ids())).abs().max() > 0.05


def test_no_logit_depends_on_a_later_token(names):
    model, expected = trained(names), logits(trained(names), ids())
    for seen in (1, WINDOW + 2, LENGTH - 1):
        found = logits(model, torch.cat([ids()[:, :seen], ids().flip(1)[:, seen:]], 1))
        close(found[:, :seen], expected[:, :seen])


def test_rows_alone_are_rows_of_a_padded_batch(names):
    model, lengths = trained(names), (LENGTH, 9, 15)
    for is_left in (True, False):
        wide, mask = torch.full((3, LENGTH + 3), 5), torch.zeros(3, LENGTH + 3, dtype=torch.long)
        places = [slice(LENGTH + 3 - length, None) if is_left else slice(length) for length in lengths]
        for row, (place, length) in enumerate(zip(places, lengths, strict=True)):
            wide[row, place], mask[row, place] = ids()[row, :length], 1
        found = logits(model, wide, attention_mask=mask)
        for row, (place, length) in enumerate(zip(places, lengths, strict=True)):
            close(found[row, place], logits(model, ids()[row : row + 1, :length])[0])


def test_a_cache_changes_nothing(names):
    model, wide = trained(names), torch.nn.functional.pad(ids(), (3, 0), value=5)
    mask = torch.ones_like(wide)
    mask[0, :3], mask[1, :1] = 0, 0
    expected, cache, pieces, start = logits(model, wide, attention_mask=mask), model.new_cache(), [], 0
    for length in (6, 1, 1, 1, 5, 1, 1, 9):
        end = start + length
        more = {"attention_mask": mask[:, :end], "use_cache": True, CACHE: cache}
        pieces.append(logits(model, wide[:, start:end], **more))
        start = end
    assert start == wide.shape[1]
    close(torch.cat(pieces, 1)[mask.bool()], expected[mask.bool()])
    alone = logits(model, ids()[:1])
    close(expected[:1, 3:], alone)


def test_generation_with_a_cache_is_generation_without(names):
    model, given = trained(names), ids()[:, :8]
    mask = torch.ones_like(given)
    mask[0, :3] = 0
    for settings in ({}, {"num_beams": 3}):
        outputs = [
            model.generate(given, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=use_cache,
                           eos_token_id=None, pad_token_id=0, **settings)
            for use_cache in (True, False)
        ]  # fmt: skip
        assert torch.equal(*outputs)


def test_it_passes_its_self_check(names):
    assert check_composition(untrained(names))["effect"] > 1e-3
