"""Baselines: adapters in frozen anchors, of every family, with as many parameters as a composition."""

import pytest
import torch
from transformers import StaticCache

from calmctl import AdaptedModelForCausalLM, adapt
from calmctl.baselines.building import difference_percent, matched_sizes
from calmctl.baselines.methods import ADAPTERS
from calmctl.baselines.options import AdapterOptions
from calmctl.errors import UserError
from calmctl.modeling.calling import CACHE
from tests.families import FAMILIES, WINDOW
from tests.models import checkpointing, composed, example_ids, llama, logits, padded, with_random_adapters

# GPT-J attends as the others do from transformers 5.24 on.
OWN_ATTENTION = {"BLOOM", "Falcon, rotary", "Falcon, alibi"} | ({"GPT-J"} if CACHE == "past_key_values" else set())
# peft finds its matrices by the names we give it: kinds of matrices matter, families hardly.
FOR_LORA = ["Llama", "GPT-2", "OPT", "Mixtral", "Phi-3"]
# Series adapters go where parallel ones do; these differ in what comes out of a block.
FOR_SERIES = ["Llama", "OPT", "BLOOM", "GPT-J", "Mixtral"]
# A layer of Gemma 4 has two blocks with matrices beside its attention, which is refused.
FOR_PARALLEL = list(FAMILIES)
# Windows, soft caps, positions that are learned, and heads that are shared.
FOR_PREFIX = ["Llama", "Gemma 2", "Gemma 3", "Mistral", "GPT-2", "GPT-NeoX", "OPT", "Phi-3"]
# Every kind of block, attention and position; the other families differ in what the composed model's tests are about.
IN_EVERY_RUN = {"Llama", "GPT-2", "GPT-NeoX", "GPT-J", "OPT", "BLOOM", "Mixtral", "Gemma 3"}
# These look token ids up in every layer, or have embeddings narrower than their states.
NEED_IDS = {"Gemma 4": "more than one table", "OPT, narrow embeddings": "embeddings of width 16"}
SMALL = {"size": 5}
CASES = [
    pytest.param(name, method, marks=() if name in IN_EVERY_RUN else pytest.mark.slow, id=f"{name}-{method}")
    for method, names in {
        "parallel": FOR_PARALLEL,
        "series": FOR_SERIES,
        "prefix": FOR_PREFIX,
        "lora": FOR_LORA,
        "prompt": [name for name in FAMILIES if name not in NEED_IDS],
        "p_tuning": ["Llama"],
    }.items()
    for name in names
]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name, method", CASES)
def test_adapters_hold_what_a_model_promises(name, method):
    ids, anchor = example_ids(), FAMILIES[name]()
    before = logits(anchor, ids)
    model = adapt(anchor, method, **(SMALL if ADAPTERS[method].is_prompt else {"parameters": 3000}))
    if ADAPTERS[method].is_neutral:
        assert torch.equal(logits(model, ids), before)
    expected = logits(with_random_adapters(model), ids)
    assert (expected - before).abs().max() > 0.1
    wide, mask = padded(ids, 3, 2)
    close(logits(model, wide, attention_mask=mask)[:, 3:-2], expected)
    prompt, mask = padded(ids[:, : WINDOW - 1], 3, 0)
    settings = {"attention_mask": mask, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0}
    cached, uncached = (model.generate(prompt, use_cache=use, do_sample=False, **settings) for use in (True, False))
    assert torch.equal(cached, uncached)
    loss = model(ids, labels=ids).loss
    training_loss = model.train()(ids, labels=ids).loss
    torch.testing.assert_close(training_loss, loss)
    training_loss.backward()
    touched = {n for n, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert touched == set(model.trained_parameters())


@pytest.mark.parametrize("name", sorted(OWN_ATTENTION))
def test_prefixes_are_refused_where_attention_is_out_of_reach(name):
    with pytest.raises(UserError, match="computes attention in a way of its own"):
        adapt(FAMILIES[name](), "prefix", size=4)


@pytest.mark.parametrize("name", NEED_IDS)
def test_virtual_tokens_are_refused_where_they_cannot_be(name):
    with pytest.raises(UserError, match=NEED_IDS[name]):
        adapt(FAMILIES[name](), "prompt", size=4)


def test_no_logit_depends_on_a_later_token_with_a_prefix():
    for attention in ("eager", "sdpa"):
        model, ids = with_random_adapters(adapt(llama(attn_implementation=attention), "prefix", size=5)), example_ids()
        changed = ids.clone()
        changed[:, 5:] = 7
        assert torch.equal(logits(model, ids)[:, :5], logits(model, changed)[:, :5])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_prefix_and_a_static_cache_go_together(attention):
    """The cache has room for later tokens, which the first ones must not see."""
    model, ids = with_random_adapters(adapt(llama(attn_implementation=attention), "prefix", size=5)), example_ids()
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=12)
    parts = [logits(model, part, past_key_values=cache, use_cache=True) for part in (ids[:, :5], ids[:, 5:6])]
    close(torch.cat(parts, 1), logits(model, ids[:, :6]))


@pytest.mark.parametrize("method", ADAPTERS)
def test_adapters_are_float32_whatever_the_anchor_is(method, tmp_path):
    """In bfloat16 small steps of training would round to nothing; a checkpoint keeps what was trained."""
    llama().to(torch.bfloat16).save_pretrained(tmp_path / "anchor")
    model, ids = adapt(str(tmp_path / "anchor"), method, size=3), example_ids()
    assert {parameter.dtype for parameter in with_random_adapters(model).trained_parameters().values()} == {
        torch.float32
    }
    assert model.anchor.dtype == logits(model, ids).dtype == torch.bfloat16
    model.train()(ids, labels=ids).loss.backward()
    model.eval().save_pretrained(tmp_path / "adapted")
    loaded = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted")
    assert {parameter.dtype for parameter in loaded.trained_parameters().values()} == {torch.float32}
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    converted = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in converted.parameters()} == {torch.bfloat16}
    # Rotary frequencies stay exact, as in any model of transformers: rounded, far positions would be elsewhere.
    rotary = converted.anchor.model.rotary_emb.inv_freq
    assert torch.equal(rotary, llama().model.rotary_emb.inv_freq)


def test_a_new_prefix_of_any_length_leaves_the_anchor_nearly_as_it_is():
    ids, anchor = example_ids(), FAMILIES["Llama"]()
    expected = logits(anchor, ids).softmax(-1)
    for size in (4, 300):
        found = logits(adapt(FAMILIES["Llama"](), "prefix", size=size), ids).softmax(-1)
        assert (found - expected).abs().sum(-1).mean() < 0.2


# Parameters.


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "GPT-NeoX"])
@pytest.mark.parametrize("method", [name for name, adapter in ADAPTERS.items() if not adapter.is_prompt])
def test_parameters_match_a_composition_within_two_percent(name, method):
    composition = composed(FAMILIES[name](), llama(seed=2, width=16, heads=2, kv_heads=1), connections=[[1, 0]])
    target = sum(parameter.numel() for parameter in composition.composition_parameters().values())
    model = adapt(FAMILIES[name](), method, parameters=target)
    found = sum(parameter.numel() for parameter in model.trained_parameters().values())
    assert abs(difference_percent(found, target)) < 2
    assert max(model.config.sizes.values()) - min(model.config.sizes.values()) <= 1


@pytest.mark.parametrize("units, target, sizes", [
    ({"a": 10, "b": 10}, 40, {"a": 2, "b": 2}),
    ({"a": 10, "b": 10}, 52, {"a": 3, "b": 2}),
    ({"a": 10, "b": 10}, 58, {"a": 3, "b": 3}),
    ({"a": 4, "b": 10}, 31, {"a": 3, "b": 2}),
    ({"a": 4, "b": 10}, 10, {"b": 1}),
])  # fmt: skip
def test_sizes_come_as_near_as_one_more_for_some_can(units, target, sizes):
    assert matched_sizes(units, target) == sizes


def test_too_few_parameters_are_one_clear_error():
    with pytest.raises(UserError, match="3 trainable parameters are too few"):
        matched_sizes({"a": 10}, 3)
    with pytest.raises(UserError, match=r"cannot be had: the nearest .* 60 \(\+7.1 percent; 5 count as equal\)"):
        matched_sizes({"a": 10, "b": 10}, 56)


@pytest.mark.parametrize("wanted", [{"parameters": 10**9}, {"size": 10**6}])
@pytest.mark.parametrize("method", ADAPTERS)
def test_adapters_larger_than_the_anchor_are_refused_before_they_are_made(method, wanted):
    with pytest.raises(UserError, match=r"\d+ trainable parameters are more than the whole anchor has \(31072\)"):
        adapt(llama(), method, **wanted)


def test_where_chooses_the_blocks():
    sizes = {
        where: adapt(llama(), "series", size=2, options=AdapterOptions(where=where)).config.sizes
        for where in ("attention", "both")
    }
    assert len(sizes["both"]) == 2 * len(sizes["attention"]) == 6
    assert all(name.endswith("self_attn") for name in sizes["attention"])


def test_gradient_checkpointing_gives_the_same_gradients():
    ids, found = example_ids(), []
    for enabled in (False, True):
        model = with_random_adapters(adapt(llama(), "parallel", size=3)).train()
        if enabled:
            checkpointing(model, True)
        model(ids, labels=ids).loss.backward()
        found.append([parameter.grad for parameter in model.trained_parameters().values()])
    torch.testing.assert_close(*found)


def test_adapted_models_are_no_bases():
    model = adapt(llama(), "series", size=2)
    with pytest.raises(UserError, match="itself composed or adapted"):
        adapt(model, "lora", size=2)
    with pytest.raises(UserError, match="frozen model with adapters"):
        composed(model, llama(seed=2))
