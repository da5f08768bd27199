"""Decoding with a composed model: cached equals uncached, whatever is done to the cache."""

import pytest
import torch
from torch import Tensor

from calmctl.errors import UserError
from calmctl.modeling.cache import ComposedCache
from calmctl.modeling.calling import CACHE_NAMES, cache_of
from tests.models import FORMS, composed, example_ids, gpt2, llama, logits, padded


@pytest.fixture(params=FORMS, ids=str)
def model(request):
    return composed(**FORMS[request.param])


@pytest.fixture
def ids() -> Tensor:
    return example_ids()


@pytest.mark.parametrize("left", [0, 3])
def test_cached_logits_equal_uncached_logits(model, ids, left):
    wide, mask = padded(ids, left, 0)
    expected = logits(model, wide, attention_mask=mask)
    cache = model.new_cache()
    pieces, start = [], 0
    for length in (left + 4, 1, 1, 3):
        end = start + length
        pieces.append(
            logits(model, wide[:, start:end], attention_mask=mask[:, :end], past_key_values=cache, use_cache=True)
        )
        start = end
    torch.testing.assert_close(torch.cat(pieces, 1)[:, left:], expected[:, left:], atol=2e-5, rtol=1e-4)


def test_a_bridge_computes_keys_once_per_aug_token(ids):
    model, lengths = composed(), []
    original = model.bridges[0][0].keys_values
    model.bridges[0][0].keys_values = lambda states, *rest: lengths.append(states.shape[1]) or original(states, *rest)
    model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert lengths == [9, 1, 1, 1]


@pytest.mark.parametrize("settings", [
    {"do_sample": False},
    {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 2, "top_k": 5},
], ids=["greedy", "beam", "sampling"])  # fmt: skip
@pytest.mark.parametrize("bases", ["llama", "gpt2"])
def test_cached_generation_equals_uncached_generation(ids, settings, bases):
    model = composed(norm=True, rotary=True) if bases == "llama" else composed(gpt2(1), llama(2, width=16, heads=2))
    wide, mask = padded(ids, 3, 0)
    mask[0, :3], wide[1, 3:5], mask[1, 3:5] = 1, 17, 0
    outputs = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        outputs.append(
            model.generate(wide, attention_mask=mask, max_new_tokens=8, use_cache=use_cache, pad_token_id=0, **settings)
        )
    assert torch.equal(*outputs)


def test_generation_of_a_row_does_not_depend_on_its_batch(ids):
    model = composed(norm=True, rotary=True)
    wide, mask = padded(ids, 3, 0)
    wide[0, :3], mask[0, :3] = torch.tensor([5, 6, 7]), 1
    together = model.generate(wide, attention_mask=mask, max_new_tokens=6, do_sample=False)
    alone = model.generate(ids[1:2], max_new_tokens=6, do_sample=False)
    assert torch.equal(together[1:2, wide.shape[1] :], alone[:, ids.shape[1] :])


def test_a_cropped_cache_continues_as_if_the_tokens_had_never_been_there(model, ids):
    cache = model.new_cache()
    logits(model, ids, past_key_values=cache, use_cache=True)
    cache.crop(-4)
    assert cache.get_seq_length() == 5
    again = logits(model, ids[:, 5:], past_key_values=cache, use_cache=True)
    torch.testing.assert_close(again, logits(model, ids)[:, 5:], atol=2e-5, rtol=1e-4)
    with pytest.raises(UserError, match=r"crop\(4\)"):  # formerly the length to keep
        cache.crop(4)
    cache.crop(0)
    assert cache.get_seq_length() == ids.shape[1]


def test_a_cache_repeats_selects_and_empties_all_its_parts(model, ids):
    cache = model.new_cache()
    logits(model, ids, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(2)
    cache.reorder_cache(torch.tensor([5, 1, 3, 2, 4, 0]))
    cache.batch_select_indices(torch.tensor([2, 5]))
    step = torch.full((2, 1), 4)
    expected = logits(model, torch.cat([ids[[1, 0]], step], 1))[:, -1:]
    found = logits(model, step, past_key_values=cache, use_cache=True)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    cache.reset()
    assert all(part.get_seq_length() == 0 for part in cache.parts)


def test_a_foreign_cache_is_refused(ids):
    model = composed()
    with pytest.raises(UserError, match="ComposedCache"):
        model(ids, past_key_values=cache_of(model.anchor(ids, use_cache=True)))
    assert isinstance(model(ids, use_cache=True).past_key_values, ComposedCache)


def test_a_cache_is_taken_by_either_name(model, ids):
    expected = logits(model, ids)
    for name in CACHE_NAMES:
        cache = model.new_cache()
        logits(model, ids[:, :5], use_cache=True, **{name: cache})
        torch.testing.assert_close(logits(model, ids[:, 5:], **{name: cache}), expected[:, 5:], atol=2e-5, rtol=1e-4)
    with pytest.raises(UserError, match="two names of one argument"):
        model(ids, **{name: model.new_cache() for name in CACHE_NAMES})
