"""A composed model is a Hugging Face model to the letter: what libraries do with one, they can do with it."""

import copy
import pickle
from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import checkpoint
from transformers import DataCollatorWithFlattening, PreTrainedModel

from calmctl import adapt
from calmctl.baselines.methods import ADAPTERS
from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.layers import decoder_layers
from tests.families import FAMILIES
from tests.models import composed, example_ids, gpt2, llama, logits, padded

# What families do differently, above and below the head.
VARIED = ("Llama", "Gemma 2", "Gemma 4", "Mixtral", "GPT-2", "OPT, narrow embeddings", "BLOOM", "MPT", "Phi", "Granite")
NEW = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@cache
def built(name: str) -> ComposedModelForCausalLM:
    anchor, aug = FAMILIES[name](1), FAMILIES[name](2)
    return composed(anchor, aug, connections=[[0, 0], [0, len(decoder_layers(anchor)) - 1]])


def pair(name: str) -> ComposedModelForCausalLM:
    """Return a model of a family of its own, to be changed."""
    return copy.deepcopy(built(name))


@pytest.fixture
def ids() -> Tensor:
    return example_ids()


def head_of_libraries(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Return logits as libraries make them that go around the forward pass: by the head and the configuration."""
    text, made = model.config.get_text_config(), model.get_output_embeddings()(states)
    if (scale := getattr(text, "logit_scale", None)) is not None:
        made = made * scale
    if (scaling := getattr(text, "logits_scaling", None)) is not None:
        made = made / scaling
    if (cap := getattr(text, "final_logit_softcapping", None)) is not None:
        made = torch.tanh(made / cap) * cap
    return made


@pytest.mark.parametrize("name", VARIED)
@torch.no_grad()
def test_the_head_makes_the_logits_of_what_the_decoder_returns(name, ids):
    model = built(name)
    wide, mask = padded(ids, 3, 0)
    calls = [{"input_ids": ids}, {"input_ids": wide, "attention_mask": mask, "use_cache": False}]
    for call in calls:
        expected = model(**call).logits
        assert (expected - model.anchor(**call).logits)[:, -1].abs().max() > 1e-3
        for decoder in (model.get_decoder(), model.model, model.base_model):
            states = decoder(**call, logits_to_keep=1).last_hidden_state
            torch.testing.assert_close(head_of_libraries(model, states), expected, atol=1e-6, rtol=1e-5)
    cached = model.get_decoder()(ids[:, :5], use_cache=True)
    states = model.get_decoder()(ids[:, 5:], past_key_values=cached.past_key_values).last_hidden_state
    close(head_of_libraries(model, states), logits(model, ids)[:, 5:])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", VARIED)
def test_logits_are_kept_for_the_positions_that_are_asked_for(name, ids):
    model, full = built(name), logits(built(name), ids)
    wide, mask = padded(ids, 2, 1)
    close(logits(model, wide, attention_mask=mask, logits_to_keep=4)[:, :3], full[:, -3:])
    close(logits(model, ids, logits_to_keep=1), full[:, -1:])
    close(logits(model, ids, logits_to_keep=torch.tensor([2, 5])), full[:, [2, 5]])
    rows = torch.tensor([[0], [3], [8]])
    close(logits(model, ids, logits_to_keep=rows), full.take_along_dim(rows[..., None], 1))
    chosen = torch.arange(27).reshape(3, 9) % 4 == 0
    close(logits(model, ids, logits_to_keep=chosen), full[chosen][None])


def gradients(model: PreTrainedModel, loss: Tensor) -> list[Tensor | None]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad for parameter in model.composition_parameters().values()]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:Please specify CheckpointImpl:FutureWarning")  # torch 2.9, of the one kind
def test_checkpointing_from_outside_changes_no_gradient(reentrant, ids):
    for name in VARIED:
        model, start = pair(name).train(), torch.zeros(1, requires_grad=True)
        expected = gradients(model, model(ids, labels=ids).loss)
        loss = checkpoint(lambda _, model=model: model(ids, labels=ids).loss, start, use_reentrant=reentrant)
        torch.testing.assert_close(gradients(model, loss), expected, msg=name)
        if reentrant and name == "Gemma 4":
            continue  # Keys go from layer to layer beside the states: this kind of checkpoint does not see them.
        kinds = tuple({type(layer) for base in model.bases() for layer in decoder_layers(base)})
        kind = CheckpointImpl.REENTRANT if reentrant else CheckpointImpl.NO_REENTRANT
        wrapper = partial(checkpoint_wrapper, checkpoint_impl=kind)
        apply_activation_checkpointing(model, wrapper, check_fn=lambda module, kinds=kinds: isinstance(module, kinds))
        torch.testing.assert_close(gradients(model, model(ids, labels=ids).loss), expected, msg=name)


WAKERS: dict[str, Callable[[ComposedModelForCausalLM], object]] = {
    "a layer": lambda model: decoder_layers(model.anchor)[0].train(),
    "a layer of an aug": lambda model: decoder_layers(model.augs[0])[0].train(),
    "a base": lambda model: model.anchor.train(),
    "all": lambda model: nn.Module.train(model),
}


@pytest.mark.parametrize("name", ["GPT-2", "OPT", "Llama"])
def test_nothing_wakes_dropout_in_a_frozen_base(name, ids):
    model = pair(name).train()
    for module in (module for base in model.bases() for module in base.modules()):
        for setting in vars(module).keys() & {"dropout", "attention_dropout", "p"}:
            setattr(module, setting, 0.5)
    expected = model(ids, labels=ids).loss
    for waker, wake in WAKERS.items():
        wake(model)
        assert any(module.training for base in model.bases() for module in base.modules()), waker
        assert torch.equal(model(ids, labels=ids).loss, expected), waker
        wake(model)
        model.train()
        assert not any(module.training for base in model.bases() for module in base.modules()), waker


@pytest.mark.parametrize("method", ADAPTERS)
def test_adapted_models_have_a_decoder_and_a_frozen_anchor_too(method, ids):
    size = {"size": 4} if ADAPTERS[method].is_prompt else {"parameters": 3000}
    model = adapt(FAMILIES["GPT-2"](1), method, **size)
    torch.manual_seed(3)
    for parameter in model.trained_parameters().values():
        nn.init.normal_(parameter, std=0.3)
    expected = logits(model, ids)
    for decoder in (model.get_decoder(), model.model, model.base_model):
        close(model.get_output_embeddings()(decoder(ids).last_hidden_state), expected)
    loss = model.train()(ids, labels=ids).loss
    decoder_layers(model.anchor)[0].train()
    assert torch.equal(model(ids, labels=ids).loss, loss)


def test_what_a_configuration_asks_for_is_returned(ids):
    model, plain = pair("Llama"), built("Llama")(ids, labels=ids, output_hidden_states=True)
    model.config.output_hidden_states = True
    assert all(map(torch.equal, model(ids).hidden_states, plain.hidden_states))
    assert model(ids, output_hidden_states=False).hidden_states is None
    assert len(model.train()(ids, labels=ids).hidden_states) == 4
    model.eval().config.return_dict = False
    loss, made, *_ = model(ids, labels=ids)
    assert torch.equal(made, plain.logits) and torch.equal(loss, plain.loss)
    assert torch.equal(built("Llama")(ids, return_dict=False)[0], plain.logits)
    assert isinstance(model.get_decoder()(ids), tuple) and isinstance(model.train()(ids, labels=ids), tuple)
    assert torch.equal(model.eval().generate(ids, **NEW), built("Llama").generate(ids, **NEW))


@pytest.mark.parametrize("name", ["Llama", "Mixtral", "GPT-2", "BLOOM"])
def test_what_a_base_is_configured_to_return_does_not_matter(name, ids):
    anchor, aug = copy.deepcopy(built(name).anchor), copy.deepcopy(built(name).augs[0])
    for config in (anchor.config, aug.config):
        config.return_dict, config.output_hidden_states, config.output_router_logits = False, True, True
    model = composed(anchor, aug, connections=built(name).config.connections[0])
    assert torch.equal(logits(model, ids), logits(built(name), ids)) and model(ids).hidden_states is None
    loss = built(name).train()(ids, labels=ids).loss
    built(name).eval()
    assert torch.equal(model.train()(ids, labels=ids).loss, loss)


def test_the_anchor_decides_whether_there_is_a_cache_by_default(ids):
    anchor = FAMILIES["MPT"](1)
    assert not anchor.config.use_cache
    model = composed(anchor, llama(seed=2), trained=False, connections=[[0, 0]])
    assert torch.equal(logits(model, ids), logits(anchor, ids)) and model(ids).past_key_values is None


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_weights_may_be_offloaded(offload, ids, tmp_path):
    model = composed(gate=offload == "cpu")
    expected, generated = logits(model, ids), model.generate(ids, **NEW)
    if offload == "cpu":
        cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(logits(model, ids), expected) and torch.equal(model.generate(ids, **NEW), generated)


def test_a_model_survives_pickling_and_leaves_its_bases_frozen(ids):
    model = pickle.loads(pickle.dumps(built("GPT-2")))
    assert torch.equal(logits(model, ids), logits(built("GPT-2"), ids))
    model.requires_grad_(True)
    assert {name for name, each in model.named_parameters() if each.requires_grad} == {*model.composition_parameters()}
    assert set(model.get_decoder().parameters()) == set(model.parameters()) - set(model.lm_head.parameters()) | set(
        model.anchor.parameters()
    )


def test_hooks_on_the_decoder_see_every_forward_pass(ids):
    model, seen = composed(), []
    model.get_decoder().register_forward_hook(lambda _m, _a, output: seen.append(output.last_hidden_state.shape))
    logits(model, ids)
    assert seen == [(3, 9, 32)]


def test_rows_that_a_collator_has_packed_are_read_as_packed(ids):
    collate = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)
    batch = collate([{"input_ids": row.tolist()} for row in (ids[0, :4], ids[1], ids[2, :2])])
    model, rows = built("Llama"), (ids[:1, :4], ids[1:2], ids[2:, :2])
    apart = torch.cat([logits(model, row) for row in rows], dim=1)
    labels = batch.pop("labels")
    for left_out in ("", "position_ids"):
        call = {name: value for name, value in batch.items() if name != left_out}
        with torch.no_grad():
            close(model(**call, use_cache=False).logits, apart)
        loss = model.train()(**call, labels=labels).loss
        targets = [nn.functional.cross_entropy(each[0, :-1], row[0, 1:], reduction="sum")
                   for each, row in zip(apart.split([4, 9, 2], dim=1), rows, strict=True)]  # fmt: skip
        close(loss, sum(targets) / 12)
        model.eval()


def test_an_aug_that_reads_prompts_only_is_not_shown_answers_by_accident(ids):
    model = composed(aug_reads="prompt").train()
    with pytest.raises(UserError, match="need labels or prompt_lengths while training"):
        model.get_decoder()(ids)
    model.get_decoder()(ids, prompt_lengths=torch.full((3,), 4))


@pytest.mark.parametrize("build", [partial(FAMILIES[name], 1) for name in ("GPT-2", "OPT", "MPT", "GPT-J")])
def test_more_tokens_than_positions_are_one_clear_error(build, ids):
    long = ids.repeat(1, 8)
    for model in (composed(build(), llama(seed=2), connections=[[0, 0]]), composed(llama(), build(), num=1)):
        with pytest.raises(UserError, match="reads 64 tokens, and not the 65 that there are now"):
            model.generate(long[:, :63], max_new_tokens=5, use_cache=True, eos_token_id=None)
        with pytest.raises(UserError, match="reads 64 tokens, and not the 70"):
            model(long[:, :70])
    assert composed().generate(long[:, :63], max_new_tokens=5, eos_token_id=None).shape == (3, 68)


def test_padding_takes_up_no_position(ids):
    model = composed(gpt2(1), gpt2(2))
    wide, mask = padded(ids, 60, 0)
    close(logits(model, wide, attention_mask=mask)[:, 60:], logits(model, ids))


@pytest.mark.parametrize("call, told", [
    (lambda model: model(inputs_embeds=torch.zeros(1, 2, 32)), "inputs_embeds will not do"),
    (lambda model: model.generate(inputs_embeds=torch.zeros(1, 2, 32)), "generates from input_ids only"),
    (lambda model: model.generate_batch([[3, 4]]), "no continuous batching"),
    (lambda model: model(example_ids(), past_key_values=model.new_cache(5)), "room for 5 tokens, not for 0 . 9"),
    (lambda model: model.get_decoder().save_pretrained("x"), "is saved with its head"),
])  # fmt: skip
def test_what_cannot_work_is_refused_with_one_line(call, told):
    with pytest.raises(UserError, match=told):
        call(composed())


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "MPT"])
def test_hidden_states_have_what_bridges_add_whatever_was_asked_before(name):
    ids, anchor = example_ids(), FAMILIES[name](1).eval()
    plain = anchor(ids, output_hidden_states=True).hidden_states
    found = composed(anchor=anchor, num=2)(ids, output_hidden_states=True).hidden_states
    expected = composed(anchor=FAMILIES[name](1).eval(), num=2)(ids, output_hidden_states=True).hidden_states
    assert all(map(torch.equal, found, expected))
    assert not all(map(torch.equal, found, plain))


def test_packed_documents_are_apart_and_have_no_cache():
    model, row = composed(), example_ids()[:1]
    ends = torch.tensor([0, 4, 9], dtype=torch.int32)
    packed = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": 5, "max_length_k": 5}
    torch.testing.assert_close(logits(model, row, **packed)[:, 4:], logits(model, row[:, 4:]))
    for more in ({"use_cache": True}, {"past_key_values": model.new_cache()}):
        with pytest.raises(UserError, match="have no cache"):
            logits(model, row, **packed, **more)


def test_what_cannot_be_read_is_one_line():
    with pytest.raises(UserError, match="there are no tokens"):
        composed()(example_ids()[:, :0])
    with pytest.raises(UserError, match="reads 64 tokens, and not the 69"):
        composed(gpt2(1))(example_ids(), position_ids=torch.arange(60, 69)[None])
