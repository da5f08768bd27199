"""Composed models whose augs have tokenizers of their own: the invariants of every composed model hold of them."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from calmctl.errors import UserError
from calmctl.modeling import aug_reading
from calmctl.modeling.calling import CACHE
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.layers import decoder_layers
from calmctl.modeling.selfcheck import check_composition
from calmctl.modeling.tokenizers.aug_tokens import stacked
from tests import tokenizer_families as families
from tests.models import logits, opened
from tests.own_tokenizers import PAIRS, any_ids, base, composed, forced, text_ids

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
# Pairs of tokenizers, of architectures (windows shorter than the texts among them), and of ways to cut.
CASES = {
    "gpt2-llama3": ("gpt2-llama3", ("llama", "llama"), "own"),
    "windows": ("llama2-gemma", ("llama", "gemma2"), "own"),
    "one window": ("digits-llama2", ("mistral", "mistral"), "own"),
    "tables": ("bytes-gpt2", ("gpt2", "gpt2"), "own"),
    "chunks": ("gemma-qwen", ("neox", "llama"), "chunks"),
    "alibi": ("qwen-unigram", ("llama", "bloom"), "auto"),
    "half characters": ("unigram-bytes", ("llama", "neox"), "own"),
}
FAST = ("gpt2-llama3", "windows", "alibi")
EVERY_CASE = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in FAST else pytest.mark.slow) for case in CASES]
)


def model_of(case: str, **settings: object) -> ComposedModelForCausalLM:
    pair, bases, kind = CASES[case]
    return composed(pair, bases, segmentation=kind, **settings)


def ids_of(case: str, seed: int = 0, rows: int = 2, length: int = 24) -> Tensor:
    """Return rows of text and rows of anything."""
    return torch.cat([make(CASES[case][0], seed, rows, length) for make in (text_ids, any_ids)])


@pytest.mark.parametrize("rotary", [False, True])
def test_equal_tokenizers_give_the_same_bits_on_the_way_of_different_ones(rotary):
    tokenizer = families.gpt2_style()
    shared = opened(compose(base("llama", tokenizer, 0), base("llama", tokenizer, 1), every=1, rotary=rotary))
    other, ids = forced(shared), any_ids("gpt2-llama3", 1)
    assert torch.equal(logits(shared, ids), logits(other, ids))
    caches = [each.new_cache() for each in (shared, other)]
    for start, end in ((0, 9), (9, 10), (10, 11), (11, 24)):
        one, two = (
            logits(each, ids[:, start:end], use_cache=True, **{CACHE: cache})
            for each, cache in zip((shared, other), caches, strict=True)
        )
        assert torch.equal(one, two)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    one, two = (logits(each, ids, attention_mask=mask) for each in (shared, other))
    torch.testing.assert_close(one[1], two[1], **CLOSE)
    torch.testing.assert_close(one[0, 5:], two[0, 5:], **CLOSE)


@EVERY_CASE
def test_closed_bridges_leave_the_anchor_as_it_is(case):
    model, ids = model_of(case, trained=False), ids_of(case)
    assert torch.equal(logits(model, ids), logits(model.anchor, ids))


@EVERY_CASE
def test_no_logit_depends_on_a_later_token(case):
    model, ids, other = model_of(case), ids_of(case), ids_of(case, seed=9)
    expected = logits(model, ids)
    assert (expected - logits(model.anchor, ids)).abs().max() > 0.01
    for seen in (1, 2, 7, 12, 18, 23):
        found = logits(model, torch.cat([ids[:, :seen], other[:, seen:]], dim=1))
        torch.testing.assert_close(found[:, :seen], expected[:, :seen], **CLOSE)


@EVERY_CASE
def test_padding_changes_nothing(case):
    model, ids = model_of(case), ids_of(case)
    expected = [logits(model, row[None, :length])[0] for row, length in zip(ids, (24, 9, 15, 24), strict=True)]
    for is_left in (True, False):
        wide, mask = torch.full((4, 29), 5), torch.zeros(4, 29, dtype=torch.long)
        places = []
        for row, wanted in enumerate(expected):
            start = 29 - len(wanted) - row if is_left else 0
            place = slice(start, start + len(wanted))
            wide[row, place], mask[row, place] = ids[row, : len(wanted)], 1
            places.append(place)
        found = logits(model, wide, attention_mask=mask)
        for row, (place, wanted) in enumerate(zip(places, expected, strict=True)):
            torch.testing.assert_close(found[row, place], wanted, **CLOSE)


@EVERY_CASE
def test_a_cache_changes_nothing(case):
    model, ids = model_of(case), ids_of(case)
    wide, mask = torch.nn.functional.pad(ids, (2, 0), value=5), torch.ones(4, 26, dtype=torch.long)
    mask[:, :2] = 0
    mask[1, :2], mask[3, :5] = 1, 0
    expected = logits(model, wide, attention_mask=mask)
    cache, pieces, start = model.new_cache(), [], 0
    for length in (7, 1, 1, 1, 5, 1, 3, 7):
        end = start + length
        more = {"attention_mask": mask[:, :end], "use_cache": True, CACHE: cache}
        pieces.append(logits(model, wide[:, start:end], **more))
        start = end
    seen = mask.bool()
    torch.testing.assert_close(torch.cat(pieces, 1)[seen], expected[seen], **CLOSE)


@EVERY_CASE
def test_a_cache_is_cropped_repeated_and_reordered_with_what_augs_have_read(case):
    model, ids = model_of(case), ids_of(case)
    other = ids_of(case, seed=5)
    for length in (3, 8, 13):
        cache = model.new_cache()
        cache.activate_past_recording()  # of an anchor with a window
        logits(model, torch.cat([ids[:, :length], other[:, length:20]], 1), use_cache=True, **{CACHE: cache})
        cache.crop(length - 20)
        order = torch.tensor([2, 1, 0])
        cache.batch_select_indices(torch.tensor([0, 1, 2]))
        cache.reorder_cache(order)
        cache.batch_repeat_interleave(2)
        copied = copy.deepcopy(cache)
        rows = ids[order].repeat_interleave(2, 0)
        expected = logits(model, rows)[:, length:]
        for held in (cache, copied):
            found = logits(model, rows[:, length:], use_cache=True, **{CACHE: held})
            torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("settings", [
    {"do_sample": False},
    {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 2, "top_k": 20},
    {"do_sample": False, "prefill_chunk_size": 5},
], ids=["greedy", "beams", "sampling", "chunked prompts"])  # fmt: skip
@EVERY_CASE
def test_generation_with_a_cache_is_generation_without(case, settings):
    model, ids = model_of(case), ids_of(case, length=11)[1:3]
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    plain = {name: value for name, value in settings.items() if name != "prefill_chunk_size"}
    outputs = []
    # Without a cache there are no chunks to compare with.
    for more in ({**settings, "use_cache": True}, {**plain, "use_cache": False}):
        torch.manual_seed(5)
        arguments = {"max_new_tokens": 14, "pad_token_id": 0, "eos_token_id": None, **more}
        outputs.append(model.generate(ids, attention_mask=mask, **arguments))
    assert torch.equal(*outputs)


def test_an_assistant_whose_candidates_are_rejected_changes_nothing():
    for case in ("tables", "gpt2-llama3", "windows"):
        model, ids = model_of(case), ids_of(case, length=11)[:1]
        assistant = base("llama", PAIRS[CASES[case][0]][0](), 7)
        assistant.generation_config.num_assistant_tokens = 4
        arguments = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        expected = model.generate(ids, **arguments)
        assert torch.equal(model.generate(ids, assistant_model=assistant, **arguments), expected)


@pytest.mark.parametrize("ids", [[[0]], [[1]], [[1, 0, 1]], [[2]], [[1] * 9]], ids=str)
@EVERY_CASE
def test_a_lone_marker_will_do(case, ids):
    model = model_of(case)
    assert logits(model, torch.tensor(ids)).isfinite().all()
    assert model.generate(torch.tensor(ids), max_new_tokens=3, do_sample=False, pad_token_id=0).shape[1] > len(ids[0])


@EVERY_CASE
def test_a_static_cache_is_refused(case):
    with pytest.raises(UserError, match="static cache has no room for augs with tokenizers of their own"):
        model_of(case).generate(ids_of(case)[:1], max_new_tokens=2, cache_implementation="static")


@EVERY_CASE
def test_it_passes_its_self_check(case):
    measured = check_composition(model_of(case, trained=False))
    assert measured["effect"] > 1e-3


@EVERY_CASE
def test_packed_documents_do_not_see_each_other(case):
    model, ids = model_of(case), ids_of(case)[:1]
    positions = torch.cat([torch.arange(10), torch.arange(14)])[None]
    if case == "alibi":
        with pytest.raises(UserError, match="aug 0, a BloomForCausalLM, cannot be told token by token .* packed rows"):
            logits(model, ids, position_ids=positions, use_cache=False)
        return
    found = logits(model, ids, position_ids=positions, use_cache=False)
    torch.testing.assert_close(found[:, :10], logits(model, ids[:, :10]), **CLOSE)
    torch.testing.assert_close(found[:, 10:], logits(model, ids[:, 10:]), **CLOSE)


def test_several_augs_some_of_which_share_the_anchors_tokenizer(tmp_path):
    ours, theirs = families.gpt2_style(), [families.llama3_style(), families.gpt2_style(), families.gemma_style()]
    augs = [
        base(kind, each, seed + 1)
        for seed, (kind, each) in enumerate(zip(("llama", "gpt2", "gemma2"), theirs, strict=True))
    ]
    model = opened(compose(base("llama", ours, 0), augs, every=1, tokenizers=[ours, *theirs]))
    assert [cut is None for cut in model.config.segmentations] == [False, True, False]
    ids = any_ids("gpt2-llama3", 2)
    expected = logits(model, ids)
    for index in range(3):
        other = copy.deepcopy(model)
        torch.nn.init.zeros_(other.bridge_of(index, 0).output.weight)
        assert (logits(other, ids) - expected).abs().max() > 1e-3
    cache = model.new_cache()
    pieces = [logits(model, part, use_cache=True, **{CACHE: cache}) for part in ids.split([9, 1, 1, 13], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, **CLOSE)


@pytest.mark.parametrize("case", ["gpt2-llama3", "windows", "alibi"])
def test_augs_that_read_prompts_only(case):
    model, ids = model_of(case, aug_reads="prompt"), ids_of(case)
    lengths = torch.tensor([6, 9, 3, 12])
    expected = logits(model, ids, prompt_lengths=lengths, use_cache=False)
    other = ids_of(case, seed=8)
    changed = torch.where(torch.arange(24) < lengths[:, None], ids, other)
    aug_only = logits(model, changed, prompt_lengths=lengths, use_cache=False)
    torch.testing.assert_close(aug_only[2, :3], expected[2, :3], **CLOSE)
    cache = model.new_cache()
    pieces = [
        logits(model, part, prompt_lengths=lengths, use_cache=True, **{CACHE: cache})
        for part in ids.split([7, 1, 6, 10], dim=1)
    ]
    torch.testing.assert_close(torch.cat(pieces, 1), expected, **CLOSE)
    outputs = [
        model.generate(ids[:, :9], max_new_tokens=6, do_sample=False, use_cache=use, pad_token_id=0)
        for use in (True, False)
    ]
    assert torch.equal(*outputs)


@EVERY_CASE
def test_what_a_collator_found_is_what_the_model_finds(case):
    model, ids = model_of(case).train(), ids_of(case)
    segmenter = model.model.segmenters[0]
    assert segmenter is not None
    given = stacked([segmenter.read(row)[0] for row in ids.tolist()])
    one = model(ids, labels=ids).loss
    two = model(ids, labels=ids, aug_tokens=[given]).loss
    assert torch.equal(one, two)
    two.backward()
    assert all(parameter.grad is not None for parameter in model.composition_parameters().values())


@EVERY_CASE
def test_a_checkpoint_has_all_that_reading_needs(case, tmp_path):
    model, ids = model_of(case), ids_of(case)
    for name, part in (("anchor", model.anchor), ("aug", model.augs[0])):
        part.save_pretrained(tmp_path / name)
    model.save_pretrained(tmp_path / "composed", merge_bases=True)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "composed")
    assert torch.equal(logits(again, ids), logits(model, ids))
    again.save_pretrained(tmp_path / "twice", merge_bases=True)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "twice"), ids), logits(model, ids))


@pytest.mark.parametrize("case", FAST)
def test_an_aug_whose_slices_lie_in_several_processes_takes_part_in_every_step(case, monkeypatch):
    """Those of other rows may have new tokens of the aug when this one's have none, and would wait for ever."""
    model, ids = model_of(case, aug_reads="prompt"), ids_of(case, rows=1, length=8)
    calls: list[int] = []
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **settings)
    first = decoder_layers(model.augs[0])[0]
    first.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(model.generate(ids, **settings), expected)
    assert len(calls) == 1
    monkeypatch.setattr(aug_reading, "is_sharded", lambda layer: True)
    assert torch.equal(model.generate(ids, **settings), expected)
    assert len(calls) == 1 + 12
