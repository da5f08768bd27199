"""What must hold of a composed model: identity, causality, padding, one clear error for what does not fit."""

import copy
import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from calmctl.errors import UserError
from calmctl.modeling.alignment import bridge_mask, same_tokenizer_visible
from calmctl.modeling.bridge import Bridge, BridgeConfig
from calmctl.modeling.composition import compose
from calmctl.modeling.hooks import _current
from calmctl.modeling.layers import decoder_layers
from tests.models import FORMS, VOCABULARY, composed, example_ids, gpt2, llama, logits, padded


@pytest.fixture(params=FORMS, ids=str)
def model(request):
    return composed(**FORMS[request.param])


@pytest.fixture
def ids() -> Tensor:
    return example_ids()


@pytest.mark.parametrize("form", FORMS)
def test_untrained_composition_equals_its_anchor_exactly(form, ids):
    anchor = llama(seed=1).eval()
    assert torch.equal(logits(composed(anchor, trained=False, **FORMS[form]), ids), logits(anchor, ids))


def test_paper_initialisation_does_change_the_anchor(ids):
    anchor = llama(seed=1).eval()
    assert not torch.allclose(logits(composed(anchor, trained=False, zero_init=False), ids), logits(anchor, ids))


def test_trained_bridges_matter_and_depend_on_the_aug(ids):
    with_one, with_other = composed(), composed(aug=llama(seed=9, width=16, heads=2, kv_heads=1))
    assert (logits(with_one, ids) - logits(with_other, ids)).abs().max() > 1e-2
    assert (logits(with_one, ids) - logits(with_one.anchor, ids)).abs().max() > 1e-2


@pytest.mark.parametrize("position", range(8))
def test_no_logit_depends_on_a_later_token(model, ids, position):
    changed = ids.clone()
    changed[:, position + 1 :] = (changed[:, position + 1 :] + 7) % VOCABULARY
    before, after = logits(model, ids), logits(model, changed)
    torch.testing.assert_close(before[:, : position + 1], after[:, : position + 1], atol=1e-5, rtol=1e-5)
    assert (before[:, position + 1 :] - after[:, position + 1 :]).abs().max() > 1e-3


@pytest.mark.parametrize("left, right", [(4, 0), (0, 4), (3, 2)])
@pytest.mark.parametrize("bases", ["llama", "gpt2"])
def test_padding_changes_nothing(ids, left, right, bases):
    model = composed(norm=True, rotary=True) if bases == "llama" else composed(gpt2(1), gpt2(2))
    wide, mask = padded(ids, left, right)
    expected, found = logits(model, ids), logits(model, wide, attention_mask=mask)
    torch.testing.assert_close(found[:, left : left + ids.shape[1]], expected, atol=2e-5, rtol=1e-4)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("lengths", [(4, 5), (2, 6, 1)], ids=str)
def test_documents_of_a_packed_row_do_not_see_each_other(model, ids, lengths):
    positions = torch.cat([torch.arange(length) for length in lengths]).expand(3, -1)
    packed = logits(model, ids, position_ids=positions, use_cache=False)
    apart = torch.cat([logits(model, part) for part in ids.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, apart, atol=2e-5, rtol=1e-4)
    loss = model.train()(ids, position_ids=positions, labels=ids).loss
    targets = torch.nn.functional.cross_entropy(packed[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(loss, targets)


def test_rotary_bridges_look_at_distances(ids):
    model = composed(rotary=True)
    for name, parameter in model.composition_parameters().items():
        if "query" in name or "key" in name:
            parameter.data.mul_(20)
    plain = composed(trained=False)
    plain.bridges.load_state_dict(model.bridges.state_dict())
    assert (logits(model, ids) - logits(plain, ids)).abs().max() > 1e-2


def test_bridges_that_begin_with_what_was_read_last():
    """The first head looks at the newest aug token, the last one at all alike, until training decides otherwise."""
    bridge = Bridge(BridgeConfig(rotary=True, recency=True), 16, 256, 4)
    positions, states = torch.arange(40)[None], torch.zeros(1, 40, 16)
    keys, _ = bridge.keys_values(states, positions)
    queries = bridge.queries(torch.zeros(1, 40, 256), positions)
    seen = (queries[0, :, -1:] @ keys[0].transpose(-1, -2) * bridge.head_dim**-0.5).softmax(-1)[:, 0]
    assert seen[0, -1] > 0.5 and seen[0, -1] > seen[0, -2] > seen[0, -3] > 10 * seen[0, :-8].max()
    torch.testing.assert_close(seen[-1], torch.full((40,), 1 / 40))
    assert (seen[:, -1].diff() < 0).all()
    model = composed(trained=False, rotary=True, recency=True)
    torch.testing.assert_close(logits(model, example_ids()), logits(model.anchor, example_ids()), rtol=0, atol=0)
    with pytest.raises(UserError, match="^bridge.recency=true needs bridge.rotary=true"):
        composed(recency=True)


def test_bases_in_bfloat16_work_with_bridges_in_float32(ids):
    model = composed(llama(seed=1).bfloat16(), llama(seed=2, width=16, heads=2, kv_heads=1).bfloat16())
    reference = logits(composed(), ids)
    assert {p.dtype for p in model.composition_parameters().values()} == {torch.float32}
    torch.testing.assert_close(logits(model, ids).float(), reference, atol=0.1, rtol=0.1)
    model.train()(ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in model.composition_parameters().values())
    model.generate(ids, max_new_tokens=3)


def test_copies_and_models_that_share_bases_keep_apart(ids):
    model = composed()
    expected = logits(model, ids)
    twin, shallow = copy.deepcopy(model), copy.copy(model)
    other = composed(model.anchor, model.augs[0], trained=False)
    assert torch.equal(logits(shallow, ids), expected) and torch.equal(logits(model, ids), expected)
    assert torch.equal(logits(other, ids), logits(model.anchor, ids))
    for parameter in twin.composition_parameters().values():
        parameter.data.zero_()
    assert torch.equal(logits(twin, ids), logits(model.anchor, ids)) and torch.equal(logits(model, ids), expected)


def test_a_model_that_is_gone_leaves_its_bases_as_they_were(ids):
    anchor, aug = llama(seed=1).eval(), llama(seed=2, width=16, heads=2, kv_heads=1)
    for _ in range(3):
        logits(composed(anchor, aug), ids)
    gc.collect()
    modules = [*anchor.modules(), *aug.modules()]
    assert not any(module._forward_hooks for module in modules)


def test_forwards_in_several_threads_do_not_mix(ids):
    model = composed()
    rows = [ids, ids.flip(1), ids[:, :5], ids.flip(0)]
    expected = [logits(model, row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = list(pool.map(lambda row: logits(model, row), rows))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_mask_of_another_length_is_refused(ids):
    model = composed()
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(UserError, match="9 cached and 1 new tokens need"):
        model(ids[:, :1], attention_mask=torch.ones(3, 1), past_key_values=cache)


def test_eager_and_fused_attention_agree(ids):
    torch.testing.assert_close(
        logits(composed(llama(seed=1, attn_implementation="eager")), ids),
        logits(composed(llama(seed=1, attn_implementation="sdpa")), ids), atol=1e-5, rtol=1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("autocast", [False, True])
def test_folded_and_unfolded_keys_and_values_agree(autocast):
    bridge = composed().bridges[0][0]
    states, positions = torch.randn(2, 5, 16), torch.arange(5).expand(2, 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        folded = bridge.folded()
    assert folded.dtype == torch.float32
    for one, other in zip(
        bridge.keys_values(states, positions, folded), bridge.keys_values(states, positions), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert composed(norm=True).bridges[0][0].folded() is None


def test_decoding_folds_each_bridge_once(ids, monkeypatch):
    model, folds = composed(), []
    original = Bridge.folded
    monkeypatch.setattr(Bridge, "folded", lambda bridge: folds.append(bridge) or original(bridge))
    model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    assert len(folds) == len(set(map(id, folds))) == 3


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_no_mask_is_the_mask_of_a_batch_without_padding(implementation):
    bridge, eager = composed().bridges[0][0], implementation == "eager"
    states, read, positions = torch.randn(2, 6, 32), torch.randn(2, 6, 16), torch.arange(6).expand(2, 6)
    keys, values = bridge.keys_values(read, positions)
    mask = bridge_mask(same_tokenizer_visible(2, 0, 6, states.device), None, 6)
    for rows in (slice(None), slice(5, None)):
        arguments = states[:, rows], positions[:, rows], keys, values
        masked, unmasked = bridge(*arguments, mask[:, :, rows], eager), bridge(*arguments, None, eager)
        torch.testing.assert_close(unmasked, masked, atol=1e-5, rtol=1e-4)


def test_a_mask_that_hides_nothing_costs_nothing(ids, monkeypatch):
    model, seen = composed(), []
    expected = logits(model, ids)
    original = Bridge.forward
    monkeypatch.setattr(Bridge, "forward", lambda *args: seen.append(args[5]) or original(*args))
    assert torch.equal(logits(model, ids, attention_mask=torch.ones_like(ids)), expected)
    model.generate(ids, max_new_tokens=3, eos_token_id=None)
    assert len(seen) == 12 and not any(mask is not None for mask in seen)


def test_forwards_leave_no_state_behind(ids):
    model = composed()

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    logits(model, ids)
    before = tensors()
    for _ in range(5):
        logits(model, ids)
    assert tensors() == before
    with pytest.raises(IndexError):
        model(torch.full((1, 3), VOCABULARY + 5))
    assert _current.get() is None


def test_bases_that_do_not_fit_are_one_clear_error():
    small = llama(seed=2)
    small.resize_token_embeddings(VOCABULARY - 10)
    with pytest.raises(UserError, match="40 token ids, the anchor 50"):
        composed(aug=small)
    with pytest.raises(UserError, match="itself a composed model"):
        composed(composed())
    with pytest.raises(TypeError, match="loaded already"):
        composed(dtype=torch.bfloat16)


def test_heads_must_divide_the_anchor():
    with pytest.raises(UserError, match="num_heads=5 does not divide"):
        composed(num_heads=5)


def test_augs_have_to_be_given():
    with pytest.raises(UserError, match="aug: no model is given"):
        compose(llama(), [])


def test_the_configuration_tells_what_tools_ask_whatever_the_family_calls_it():
    aug = llama(seed=2, width=16, heads=2)
    aug.config.max_position_embeddings = 48
    config = composed(gpt2(1), aug).config
    facts = (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    assert facts == (VOCABULARY, 32, 3, 4)
    assert config.max_position_embeddings == 48


def test_no_cache_is_made_where_the_configuration_says_so(ids):
    """Which is how transformers' Trainer asks for none."""
    model = composed()
    model.config.use_cache = False
    assert model(ids).past_key_values is None


def test_ids_that_only_pad_the_vocabulary_of_the_anchor_can_be_generated(ids):
    aug = llama(seed=2, width=16, heads=2, kv_heads=1)
    model = composed(aug=aug)
    expected = logits(model, ids.clamp(max=39))
    aug.resize_token_embeddings(40)
    assert torch.equal(logits(model, ids.clamp(max=39)), expected)
    ids[:, 0] = VOCABULARY - 1
    assert torch.isfinite(logits(model, ids)).all()


def test_resizing_is_refused_before_anything_has_changed():
    model = composed()
    with pytest.raises(UserError, match="resize the anchor and the augs, then compose"):
        model.resize_token_embeddings(60)
    assert model.get_input_embeddings().num_embeddings == VOCABULARY


def test_hidden_states_and_attentions_are_the_anchors_with_what_bridges_added(ids):
    model, read = composed(llama(seed=1, attn_implementation="eager")), []
    for layer in [*decoder_layers(model.anchor), model.anchor.model.norm]:
        layer.register_forward_pre_hook(lambda _m, args: read.append(args[0]))
    found = model(ids, output_hidden_states=True, output_attentions=True)
    assert all(torch.equal(*pair) for pair in zip(found.hidden_states[:3], read, strict=False))
    assert torch.equal(found.hidden_states[3], model.anchor.model.norm(read[3]))
    assert [attention.shape for attention in found.attentions] == [(3, 4, 9, 9)] * 3
    generated = model.generate(ids, max_new_tokens=2, output_hidden_states=True, return_dict_in_generate=True)
    assert len(generated.hidden_states) == 2
    assert model(ids).hidden_states is None
