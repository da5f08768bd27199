"""Where adapters sit, what they compute and how they start: every choice does what it says, on every kind of block."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn

from calmctl import AdaptedModelForCausalLM, adapt
from calmctl.baselines.methods import ADAPTERS, options_for
from calmctl.baselines.options import Activation, AdapterOptions
from calmctl.baselines.places import PUBLISHED_TARGETS, widths_of
from calmctl.errors import UserError
from tests.families import FAMILIES
from tests.models import example_ids, gpt2, llama, logits, with_random_adapters

# A block called by name, one of two layers without a module around them, fused layers, experts.
KINDS = ["Llama", "OPT", "BLOOM", "GPT-2", "GPT-J", "Mixtral"]


def adapted(method: str, name: str = "Llama", size: int = 3, **options: object) -> AdaptedModelForCausalLM:
    return adapt(FAMILIES[name](), method, size=size, options=AdapterOptions(**options))


def inputs_and_outputs(model: nn.Module, name: str, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a linear layer takes and gives when a model reads some ids."""
    found = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, args, output: found.append((args[0], output)))
    logits(model, ids)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("where", ADAPTERS["series"].where)
def test_series_adapters_stand_where_they_are_said_to(name, where):
    model, ids = adapted("series", name, where=where), example_ids()
    assert torch.equal(logits(model, ids), logits(FAMILIES[name](), ids))
    layers = model.config.num_hidden_layers
    before = [each for each in model.config.sizes if each.endswith(":before")]
    assert len(model.config.sizes) == layers * (2 if where.startswith(("both", "around")) else 1)
    assert len(before) == (layers if where.startswith(("before", "around")) else 0)
    expected = logits(with_random_adapters(model), ids)
    assert (expected - logits(FAMILIES[name](), ids)).abs().max() > 0.1
    loss = model.train()(ids, labels=ids).loss
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.trained_parameters().values())


def test_before_and_after_a_block_are_what_llm_adapters_computes():
    """X + A(x) goes into the layers of a series adapter before the MLP; y + A(y) comes out of one after it."""
    ids = example_ids()
    for where, side in (("before_feed_forward", 0), ("feed_forward", 1)):
        model, plain = with_random_adapters(adapted("series", where=where)), FAMILIES["Llama"]()
        adapter = next(iter(model.adapters.values()))
        bare = inputs_and_outputs(plain, "model.layers.0.mlp", ids)[side]
        found = inputs_and_outputs(model.anchor, "model.layers.0.mlp", ids)
        if side:  # the hook of a module that is looked at runs after the adapter's
            torch.testing.assert_close(found[1], bare + adapter(bare))
        else:
            torch.testing.assert_close(found[0], bare + adapter(bare))


def test_linear_layers_can_be_adapted_one_by_one():
    ids, plain = example_ids(), FAMILIES["Llama"]()
    series = adapted("series", targets=("up_proj", "gate_proj", "down_proj"))
    sides = {key.rpartition(".")[2] for key in series.config.sizes}
    assert sides == {"up_proj:before", "gate_proj:before", "down_proj"}
    parallel = with_random_adapters(adapted("parallel", targets=("mlp.up_proj",)))
    name = "model.layers.0.mlp.up_proj"
    assert all(key.endswith("mlp.up_proj") for key in parallel.config.sizes)
    taken, given = widths_of(plain.get_submodule(name))
    adapter = next(iter(parallel.adapters.values()))
    assert (adapter.down.in_features, adapter.up.out_features) == (taken, given) and taken != given
    read, product = inputs_and_outputs(plain, name, ids)
    torch.testing.assert_close(inputs_and_outputs(parallel.anchor, name, ids)[1], product + adapter(read))


@pytest.mark.parametrize("method, family", [(m, f) for m, families in PUBLISHED_TARGETS.items() for f in families])
def test_the_published_layers_exist_in_their_families(method, family):
    name = {"llama": "Llama", "gptj": "GPT-J", "bloom": "BLOOM"}[family]
    of, targets = (method, "llm_adapters") if method in ADAPTERS else ("series", method)
    model = adapted(of, name, targets=(targets,))
    named = {key.removesuffix(":before").rpartition(".")[2] for key in model.config.sizes}
    assert named == set(PUBLISHED_TARGETS[method][family])
    assert torch.equal(logits(model, example_ids()), logits(FAMILIES[name](), example_ids()))


@pytest.mark.parametrize("method", ["series", "parallel"])
def test_published_bottlenecks_start_as_published_and_change_the_model(method):
    torch.manual_seed(0)
    model, ids = adapted(method, size=20, init="published"), example_ids()
    assert not torch.equal(logits(model, ids), logits(llama(), ids))
    for parameter in model.trained_parameters().values():
        assert 0.017 < float(parameter.detach().std()) < 0.023


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activation_and_scaling_are_those_that_were_asked_for(activation):
    model = with_random_adapters(adapted("series", activation=activation, scaling=0.5))
    adapter, states = next(iter(model.adapters.values())), torch.randn(2, 32)
    function = getattr(torch.nn.functional, activation)
    expected = 0.5 * adapter.up(function(adapter.down(states)))
    torch.testing.assert_close(adapter(states), expected)


def test_scaling_of_lora_is_alpha_over_rank():
    ids, found = example_ids(), []
    for scaling in (0.0, 2.0, 4.0):
        found.append(logits(with_random_adapters(adapted("lora", scaling=scaling)), ids))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


@pytest.mark.parametrize("method", ["lora", "series", "parallel"])
def test_dropout_is_for_training_only(method):
    model, ids = with_random_adapters(adapted(method, dropout=0.5)), example_ids()
    assert torch.equal(logits(model, ids), logits(model, ids))
    assert torch.equal(logits(model, ids), logits(with_random_adapters(adapted(method)), ids))
    model.train()
    torch.manual_seed(0)
    losses = [float(model(ids, labels=ids).loss.detach()) for _ in range(2)]
    assert losses[0] != losses[1]
    own = AdapterOptions(dropout=0.5, targets=("c_attn",) if method == "lora" else ())
    frozen = adapt(gpt2(), method, size=3, options=replace(own, targets=own.targets)).train()
    inserted = {id(module) for adapter in frozen.adapters.values() for module in adapter.modules()}
    dropouts = [(name, each) for name, each in frozen.anchor.named_modules() if isinstance(each, nn.Dropout)]
    kept = [each for name, each in dropouts if "lora" not in name and id(each) not in inserted]
    assert kept and not any(each.training for each in kept)


@pytest.mark.parametrize("method, options", [
    ("series", {"where": "around_feed_forward", "activation": "gelu", "scaling": 0.5}),
    ("series", {"targets": ["up_proj", "down_proj"], "init": "published"}),
    ("parallel", {"targets": ["llm_adapters"]}),
    ("lora", {"targets": ["q_proj"], "scaling": 1.0}),
    ("prefix", {"init": "published"}),
], ids=str)  # fmt: skip
def test_a_checkpoint_keeps_the_options(method, options, tmp_path):
    llama().save_pretrained(tmp_path / "anchor")
    model = adapt(str(tmp_path / "anchor"), method, size=3, options=AdapterOptions.from_dict(options))
    with_random_adapters(model).save_pretrained(tmp_path / "adapted")
    loaded = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted")
    assert torch.equal(logits(loaded, example_ids()), logits(model, example_ids()))
    if ADAPTERS[method].merged is not None:
        torch.testing.assert_close(logits(loaded.merged(), example_ids()), logits(model, example_ids()))


@pytest.mark.parametrize("method, where", [("series", "both"), ("parallel", "attention"), ("lora", "attention")])
def test_checkpoints_of_before_there_were_options_are_read(method, where, tmp_path):
    llama().save_pretrained(tmp_path / "anchor")
    model = adapt(str(tmp_path / "anchor"), method, size=3, options=AdapterOptions(where=where))
    with_random_adapters(model).save_pretrained(tmp_path / "adapted")
    file = tmp_path / "adapted" / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({key: settings[key] for key in settings if key not in ("options", "virtual_tokens")}))
    loaded = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted")
    assert torch.equal(logits(loaded, example_ids()), logits(model, example_ids()))
    file.write_text(json.dumps(settings | {"options": {"colour": "red"}}))
    with pytest.raises(UserError, match="adapter option 'colour' is not known"):
        AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted")


@pytest.mark.parametrize("method, options, message", [
    ("lora", {"where": "before_feed_forward"}, "where=before_feed_forward: LoRA cannot go there; give both, attention"),
    ("lora", {"activation": "relu"}, "activation=relu: LoRA has no such option"),
    ("prefix", {"where": "both"}, "where=both: Prefix tuning cannot go there; give attention, or leave it out"),
    ("p_tuning", {"init": "published"}, "init=published: P-tuning has no such option"),
    ("prefix", {"dropout": 0.1}, "dropout=0.1: Prefix tuning has no such option"),
    ("lora", {"targets": ("wrong",)}, "LlamaForCausalLM has no linear layer wrong .*; it has q_proj, k_proj"),
    ("series", {"targets": ("q_proj",)}, "q_proj is in no MLP, and series adapters of single layers go into MLPs only"),
])  # fmt: skip
def test_an_option_that_cannot_be_is_one_line(method, options, message):
    with pytest.raises(UserError, match=message):
        adapt(llama(), method, size=2, options=AdapterOptions(**options))


@pytest.mark.parametrize("options, message", [
    ({"where": "nowhere"}, "where='nowhere' is not one of attention"),
    ({"where": "both", "targets": ("q_proj",)}, "give one of them"),
    ({"targets": ("q_proj", "q_proj")}, "given once"),
    ({"activation": "sine"}, "activation='sine' is not one of tanh"),
    ({"init": "zero"}, "init='zero' is not one of neutral, published"),
    ({"scaling": -1.0}, "scaling=-1.0 must be a positive number"),
    ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AdapterOptions(**options)


def test_nothing_was_published_for_other_families():
    with pytest.raises(UserError, match="LLM-Adapters trained lora on llama, gptj, bloom, not on opt; name them"):
        adapted("lora", "OPT", targets=("llm_adapters",))


def test_default_blocks_are_filled_in():
    assert options_for("series", AdapterOptions()).where == "feed_forward"
    assert options_for("lora", AdapterOptions(targets=("q_proj",))).where == ""
    assert options_for("prompt", AdapterOptions()).where == ""
