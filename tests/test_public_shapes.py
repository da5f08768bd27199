"""The table of public shapes, and the pairs of pretrained models that presets compose."""

from functools import cache

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from calmctl.config import list_presets, load_config
from calmctl.errors import UserError
from calmctl.experiments.code import ReproduceCodeConfig
from calmctl.experiments.config import ExperimentConfig
from calmctl.experiments.ntl import ReproduceNTLConfig
from calmctl.modeling.bases.public_shapes import public_shapes, shape_of
from calmctl.modeling.bases.sources import without_weights
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import check_bases, compose
from calmctl.modeling.layers import num_layers
from tests.models import llama, logits

SCHEMAS: dict[str, type[ExperimentConfig]] = {
    "reproduce/ntl": ReproduceNTLConfig,
    "reproduce/code": ReproduceCodeConfig,
}
FAMILIES = ("gemma", "gemma2", "pythia", "pythia-2.8b", "qwen2.5", "smollm2")
# Presets of models with different tokenizers.
TWO_TOKENIZERS = {
    *("reproduce/ntl/smollm2-gemma3", "reproduce/ntl/gemma3-smollm2", "reproduce/ntl/translate"),
    "reproduce/code/smollm2-qwencoder",
}
# What the presets compose: anchor, aug, and every which of its layers.
PAIRS = [
    ("EleutherAI/pythia-1.4b", "EleutherAI/pythia-410m", 4),
    ("EleutherAI/pythia-2.8b", "EleutherAI/pythia-410m", 4),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "Qwen/Qwen2.5-Coder-0.5B-Instruct", 4),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m", 2),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m", 4),
    ("HuggingFaceTB/SmolLM2-1.7B", "HuggingFaceTB/SmolLM2-360M", 4),
    ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-0.5B", 4),
    ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-Coder-0.5B", 4),
    ("google/gemma-2-9b", "google/gemma-2-2b", 4),
    ("google/gemma-7b", "google/codegemma-2b", 4),
    ("google/gemma-7b", "google/gemma-2b", 4),
    ("google/gemma-3-270m", "HuggingFaceTB/SmolLM2-135M-Instruct", 4),
]
HEAD_DIM = 8
VOCABULARY = 61


@cache
def pretrained() -> dict[str, ExperimentConfig]:
    """Return the presets of experiments that take pretrained models, by name."""
    found = {p.name: load_config(SCHEMAS[p.group], p.name) for p in list_presets() if p.group in SCHEMAS}
    return {name: config for name, config in found.items() if config.anchor.base}


@cache
def whole(name: str) -> PreTrainedModel:
    return without_weights(shape_of(name).config)


def reduced(name: str, seed: int, **more: object) -> PreTrainedModel:
    """Return a random model of a public shape made narrow and shallow: the same heads, a few values each."""
    settings = dict(public_shapes()[name]["config"])
    own = settings["hidden_size"] // settings["num_attention_heads"]
    scale = settings.get("head_dim", own) // HEAD_DIM
    for width in ("hidden_size", "intermediate_size", "head_dim"):
        if width in settings:
            settings[width] //= scale
    settings |= {"num_hidden_layers": settings["num_hidden_layers"] // 4, "vocab_size": VOCABULARY, "dtype": "float32"}
    settings |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, **more}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    for parameter in model.parameters():  # larger than initialisations are, so that what is read matters
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("name", public_shapes())
def test_a_shape_has_the_parameters_that_are_published(name):
    shape = shape_of(name)
    assert shape.is_public
    assert sum(weight.numel() for weight in whole(name).parameters()) == public_shapes()[name]["parameters"]
    assert shape.token_ids is not None and shape.token_ids <= shape.config.vocab_size


def test_a_model_that_is_here_has_its_own_shape(tmp_path, monkeypatch):
    llama(layers=2).save_pretrained(tmp_path / "EleutherAI" / "pythia-410m")
    monkeypatch.chdir(tmp_path)
    shape = shape_of("EleutherAI/pythia-410m")
    assert not shape.is_public and shape.config.num_hidden_layers == 2


def test_an_unknown_model_is_refused():
    with pytest.raises(UserError, match="'some/model' is neither a folder .* name one of Qwen/Qwen2.5-0.5B"):
        shape_of("some/model")


@pytest.mark.slow
def test_every_family_has_a_preset_for_both_sections():
    assert set(pretrained()) == {f"{group}/{name}" for group in SCHEMAS for name in FAMILIES} | TWO_TOKENIZERS


@pytest.mark.parametrize("group", SCHEMAS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_vocabularies_of_a_pair_fit(group, family):
    config = pretrained()[f"{group}/{family}"]
    augs = [name for name in (config.aug.base, config.vanilla_aug) if name]
    token_ids = shape_of(config.anchor.base).token_ids
    check_bases(whole(config.anchor.base), [whole(name) for name in augs], token_ids)
    assert all(shape_of(name).token_ids == token_ids for name in augs)
    if isinstance(config, ReproduceNTLConfig):
        assert config.data.tokenizer == config.anchor.base


def test_a_larger_padded_vocabulary_is_no_other_tokenizer():
    """Qwen2.5 7B pads its embeddings further than 0.5B does; the tokenizer is one, and its ids are known to both."""
    anchor, aug = "Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-0.5B"
    check_bases(whole(anchor), [whole(aug)], shape_of(anchor).token_ids)
    with pytest.raises(UserError, match="the aug has 151936 token ids, the anchor 152064"):
        check_bases(whole(anchor), [whole(aug)], None)


def test_every_pair_of_a_preset_is_tried():
    assert {(each.anchor.base, each.aug.base, each.compose.every) for each in pretrained().values()} == set(PAIRS)


@pytest.mark.parametrize(("anchor_name", "aug_name", "every"), PAIRS)
def test_a_pair_composes_trains_decodes_and_is_stored(anchor_name, aug_name, every, tmp_path):
    bases = reduced(anchor_name, 1), reduced(aug_name, 2)
    for role, base in zip(("anchor", "aug"), bases, strict=True):
        base.save_pretrained(tmp_path / role)
    model = compose(tmp_path / "anchor", tmp_path / "aug", every=every)
    assert len(model.connections[0]) == max(1, num_layers(bases[1].config) // every)
    ids = torch.randint(2, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits(model, ids), logits(bases[0], ids))

    model.train()(ids, labels=ids).loss.backward()
    outputs = [weight for name, weight in model.composition_parameters().items() if "output" in name]
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in outputs)
    with torch.no_grad():
        for weight in outputs:
            weight.normal_(std=0.3)
    model.eval()
    assert (logits(model, ids) - logits(bases[0], ids)).abs().max() > 0.1
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **settings), model.generate(ids, use_cache=False, **settings))

    model.save_pretrained(tmp_path / "composed")
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(tmp_path / "composed"), ids), logits(model, ids))
