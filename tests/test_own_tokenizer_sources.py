"""Compositions with several tokenizers: where tokenizers are found, how they are kept, and which are refused."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from tests import tokenizer_families as families
from tests.families import FAMILIES
from tests.models import logits, opened
from tests.own_tokenizers import any_ids, base, composed


def saved(folder, kind, tokenizer, seed):
    base(kind, tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_tokenizers_are_found_beside_models_and_a_changed_one_is_refused(tmp_path):
    anchor = saved(tmp_path / "anchor", "llama", families.gpt2_style(), 0)
    aug = saved(tmp_path / "aug", "llama", families.llama3_style(), 1)
    model = opened(compose(anchor, aug, every=1))
    assert model.config.segmentations[0]["kind"] == "own"
    objects = [AutoModelForCausalLM.from_pretrained(each) for each in (anchor, aug)]
    assert compose(*objects).config.segmentations[0]["kind"] == "own"
    model.save_pretrained(tmp_path / "composed")
    ids = any_ids("gpt2-llama3", 1)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "composed")
    assert torch.equal(logits(again, ids), logits(model, ids))
    families.lone_digits().save_pretrained(aug)
    with pytest.raises(UserError, match="the aug's tokenizer .* is not the one that this model was trained with"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "composed")
    different = ComposedModelForCausalLM.from_pretrained(tmp_path / "composed", allow_different_base=True)
    assert torch.equal(logits(different, ids), logits(model, ids))


def test_tokenizers_that_were_given_need_not_lie_beside_the_bases(tmp_path):
    anchor = saved(tmp_path / "anchor", "llama", families.gpt2_style(), 0)
    aug = saved(tmp_path / "aug", "llama", families.gpt2_style(), 1)
    given = [families.gpt2_style(), families.tiny_bytes()]
    model = opened(compose(anchor, aug, every=1, tokenizers=given))
    model.save_pretrained(tmp_path / "composed")
    ids = any_ids("gpt2-llama3", 1)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "composed")
    assert torch.equal(logits(again, ids), logits(model, ids))


def test_a_tokenizer_that_is_not_known_is_told_of(tmp_path, caplog):
    anchor = saved(tmp_path / "anchor", "llama", families.gpt2_style(), 0)
    base("llama", families.gpt2_style(), 1).save_pretrained(tmp_path / "aug")
    with caplog.at_level("WARNING", logger="calmctl"):
        compose(anchor, tmp_path / "aug", every=1)
    assert "its tokenizer is not known here" in caplog.text


def test_a_context_of_an_aug_in_its_own_tokens_is_none_of_the_composed_model():
    model = composed()
    model.config.augs[0]["max_position_embeddings"] = 7
    assert type(model.config)(**model.config.to_dict()).max_position_embeddings == 512


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    composed().save_pretrained(tmp_path, merge_bases=True)
    file = tmp_path / "aug_0_tokenizer.json"
    text = file.read_text()
    for damage, message in (
        (lambda: file.write_text(text[: len(text) // 2]), "cannot be read"),
        (
            lambda: file.write_text(json.dumps({**json.loads(text), "normalizer": {"type": "NFC"}})),
            "is not the tokenizer",
        ),
        (file.unlink, "cannot be read"),
    ):
        damage()
        with pytest.raises(UserError, match=message):
            AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"segmentation": "best"}, "segmentation='best' is not one of auto, own, chunks"),
        (
            {"markers": {"<nothing>": "<eos>"}},
            "markers: the tokenizer of the anchor .* has no special token '<nothing>'",
        ),
        ({"tokenizers": [None]}, "tokenizers: 1 are given for an anchor and 1 augs"),
        ({"tokenizers": [None, None], "markers": {"</s>": "</s>"}}, "markers: no aug has a tokenizer of its own"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        composed(**settings)


@pytest.mark.parametrize("make", [
    families.word_piece, families.lower_casing, families.compatible_letters, families.dropping_spaces,
    families.without_bytes,
])  # fmt: skip
def test_tokenizers_that_lose_text_are_refused(make):
    ours, lossy = families.gpt2_style(), make()
    for pair in ((ours, lossy), (lossy, ours)):
        with pytest.raises(UserError, match="does not keep texts") as caught:
            compose(base("llama", pair[0], 0), base("llama", pair[1], 1), tokenizers=pair)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [FAMILIES["MPT"], lambda vocabulary: base("neo", families.tiny_bytes(), 1)])
def test_an_aug_that_goes_by_places_in_the_row_is_refused(make):
    tokenizers = families.gpt2_style(), families.tiny_bytes()
    with pytest.raises(UserError, match="the aug, a .* has a tokenizer of its own, and it.* place in the row, gaps"):
        compose(base("llama", tokenizers[0], 0), make(vocabulary=256 + 5), tokenizers=tokenizers)


def test_an_aug_that_takes_no_masks_of_its_own_is_read_in_chunks():
    assert composed("qwen-unigram", ("llama", "bloom")).config.segmentations[0]["kind"] == "chunks"
    with pytest.raises(UserError, match="segmentation=own: the aug, a BloomForCausalLM, .* use segmentation=chunks"):
        composed("qwen-unigram", ("llama", "bloom"), segmentation="own")
