"""Options of the composed model: bridge forms, augs that read prompts only, untrained and several augs."""

import pytest
import torch
from torch import Tensor

from calmctl.errors import UserError
from calmctl.modeling.bridge import BridgeConfig
from calmctl.modeling.composed import ComposedModelForCausalLM
from tests.models import composed, example_ids, gpt2, llama, logits, padded
from tests.test_deviations import OTHER_BRIDGES

PROMPT = 5


@pytest.fixture
def ids() -> Tensor:
    return example_ids()


def read_by_aug(model) -> list[int]:
    """Return a list that fills with the number of tokens in each of the aug's forward passes."""
    lengths = []
    model.augs[0].get_input_embeddings().register_forward_hook(lambda _m, args, _o: lengths.append(args[0].shape[1]))
    return lengths


# Bridges.


def test_a_closed_gate_is_the_anchor_and_can_be_opened(ids):
    model = composed(gate=True, trained=False)
    assert torch.equal(logits(model, ids), logits(model.anchor, ids))
    optimizer = torch.optim.SGD(model.composition_parameters().values(), lr=1.0)
    model.train()(ids, labels=ids).loss.backward()
    gradients = {name: parameter.grad.abs().max() for name, parameter in model.composition_parameters().items()}
    assert all((value > 0) == name.endswith("gate") for name, value in gradients.items())
    optimizer.step()
    optimizer.zero_grad()
    model(ids, labels=ids).loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.composition_parameters().values())


def test_dropout_acts_while_training_only(ids):
    model = composed(dropout=0.5)
    assert torch.equal(logits(model, ids), logits(composed(), ids))
    model.train()
    assert not torch.equal(model(ids, labels=ids).loss, model(ids, labels=ids).loss)


@pytest.mark.parametrize("settings", [{"dropout": 1.0}, {"dropout": -0.1}, {"num_heads": 0}], ids=str)
def test_bridge_settings_out_of_range_are_one_clear_error(settings):
    with pytest.raises(UserError, match=f"bridge.{next(iter(settings))}="):
        BridgeConfig(**settings)


# The aug as an encoder: it reads the prompt only.


def test_an_aug_that_reads_prompts_only_reads_no_label(ids):
    model, labels = composed(aug_reads="prompt"), ids.clone()
    labels[:, :PROMPT] = -100
    lengths = read_by_aug(model)
    with_labels = model(ids, labels=labels)
    assert lengths == [PROMPT]
    told = logits(model, ids, prompt_lengths=torch.full((3,), PROMPT))
    assert torch.equal(with_labels.logits, told)
    everything = logits(composed(), ids)
    torch.testing.assert_close(told[:, :PROMPT], everything[:, :PROMPT])
    assert (told[:, PROMPT:] - everything[:, PROMPT:]).abs().max() > 1e-2
    torch.testing.assert_close(model.train()(ids, labels=labels).loss, with_labels.loss)


def test_without_a_known_prompt_everything_is_the_prompt(ids):
    assert torch.equal(logits(composed(aug_reads="prompt"), ids), logits(composed(), ids))


def test_prompts_of_different_lengths_in_one_batch_do_not_mix(ids):
    model, labels = composed(aug_reads="prompt"), ids.clone()
    for row, length in enumerate((2, 5, 7)):
        labels[row, :length] = -100
    together = model(ids, labels=labels).logits
    for row in range(3):
        alone = model(ids[row : row + 1], labels=labels[row : row + 1]).logits
        torch.testing.assert_close(together[row : row + 1], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OTHER_BRIDGES)
def test_rows_without_any_prompt_see_nothing_of_the_aug(ids, name):
    """Whatever a bridge adds after it has attended, where it could see nothing it adds nothing."""
    more = {"rotary": True} if name == "recency" else {}
    model = composed(
        aug_reads="prompt", **{"num_heads": None, **more, name: OTHER_BRIDGES[name] if name != "num_heads" else 2}
    )
    torch.testing.assert_close(model(ids, labels=ids).logits, logits(model.anchor, ids))


@pytest.mark.parametrize("settings", [
    {"do_sample": False},
    {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 2},
    {"do_sample": False, "cache_implementation": "static"},
], ids=["greedy", "beam", "sampling", "static"])  # fmt: skip
def test_generation_reads_the_prompt_once(ids, settings):
    model = composed(aug_reads="prompt", norm=True, rotary=True)
    wide, mask = padded(ids, 3, 0)
    mask[0, :3] = 1
    lengths, outputs = read_by_aug(model), []
    for use_cache in (True, False):
        if not use_cache:
            settings = {**settings, "cache_implementation": None}
        torch.manual_seed(5)
        outputs.append(
            model.generate(
                wide, attention_mask=mask, max_new_tokens=6, use_cache=use_cache, eos_token_id=None, pad_token_id=0,
                **settings,
            )
        )  # fmt: skip
    assert torch.equal(*outputs)
    assert lengths == [wide.shape[1]] * 7


def test_an_assistant_does_not_change_where_the_prompt_ends(ids):
    model = composed(aug_reads="prompt")
    settings = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    expected = model.generate(ids[:1], **settings)
    for assistant in (llama(seed=7), model.anchor, composed(model.anchor, aug_reads="prompt")):
        assert torch.equal(model.generate(ids[:1], assistant_model=assistant, **settings), expected)


def test_prompts_in_packed_rows_are_refused(ids):
    positions = torch.cat([torch.arange(4), torch.arange(5)]).expand(3, -1)
    with pytest.raises(UserError, match="cannot read packed rows"):
        composed(aug_reads="prompt")(ids, labels=ids, position_ids=positions, use_cache=False)


def test_a_cropped_cache_keeps_the_prompt(ids):
    model = composed(aug_reads="prompt")
    lengths = torch.full((3,), PROMPT)
    cache = model.new_cache()
    logits(model, ids, past_key_values=cache, prompt_lengths=lengths)
    cache.crop(-2)
    again = logits(model, ids[:, 7:], past_key_values=cache, prompt_lengths=lengths)
    torch.testing.assert_close(again, logits(model, ids, prompt_lengths=lengths)[:, 7:], atol=2e-5, rtol=1e-4)
    with pytest.raises(UserError, match="begin another prompt"):
        model(ids[:, :2], past_key_values=cache, prompt_lengths=torch.full((3,), 11))


def test_a_prompt_in_pieces_equals_a_prompt_at_once(ids):
    model, lengths = composed(aug_reads="prompt"), torch.full((3,), PROMPT)
    cache, pieces = model.new_cache(), []
    for piece in (ids[:, :3], ids[:, 3:7], ids[:, 7:]):
        pieces.append(logits(model, piece, past_key_values=cache, prompt_lengths=lengths))
    torch.testing.assert_close(torch.cat(pieces, 1), logits(model, ids, prompt_lengths=lengths), atol=2e-5, rtol=1e-4)


def test_what_augs_read_is_one_of_two():
    with pytest.raises(UserError, match="aug_reads='nothing' is not one of all, prompt"):
        composed(aug_reads="nothing")


# Untrained augs.


def test_untrained_augs_depend_on_their_seed_only(ids):
    aug = llama(seed=2, width=16, heads=2, kv_heads=1)
    one, same, other = (composed(aug=aug, aug_seed=seed) for seed in (4, 4, 5))
    assert torch.equal(logits(one, ids), logits(same, ids))
    assert not torch.equal(logits(one, ids), logits(other, ids))
    assert one.augs[0] is not aug


def test_a_checkpoint_draws_its_untrained_augs_again(ids, tmp_path):
    llama(seed=1).save_pretrained(tmp_path / "anchor")
    model = composed(str(tmp_path / "anchor"), llama(seed=2, width=16, heads=2, kv_heads=1), aug_seed=4)
    model.save_pretrained(tmp_path / "composed")
    torch.manual_seed(99)
    loaded = ComposedModelForCausalLM.from_pretrained(tmp_path / "composed")
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    assert loaded.config.bases[1]["untrained_seed"] == 4


# Several augs.


def test_bridge_outputs_of_several_augs_add_up_at_a_shared_layer(ids):
    """With one connection each, at the last layer, the anchor's states there are the same whichever aug is joined."""
    anchor, augs = llama(seed=1), [llama(seed=2, width=16, heads=2, kv_heads=1), gpt2(3)]
    both = composed(anchor, augs, connections=[[[2, 2]], [[1, 2]]])
    states = []

    def last_states(model):
        handle = model.anchor.model.norm.register_forward_pre_hook(lambda _m, args: states.append(args[0]))
        logits(model, ids)
        handle.remove()
        return states.pop()

    alone = last_states(composed(anchor, augs[0], connections=[[2, 2]], trained=False))
    updates = []
    for index, aug in enumerate(augs):
        single = composed(anchor, aug, connections=[list(both.config.connections[index][0])])
        single.bridges[0].load_state_dict(both.bridges[index].state_dict())
        updates.append(last_states(single) - alone)
    torch.testing.assert_close(last_states(both) - alone, sum(updates), atol=1e-5, rtol=1e-4)


def test_an_aug_whose_bridges_are_closed_changes_nothing(ids):
    one = composed()
    two = composed(one.anchor, [one.augs[0], gpt2(3)], connections=[[[0, 0], [1, 1], [2, 2]], [[0, 1], [2, 2]]])
    two.bridges[0].load_state_dict(one.bridges[0].state_dict())
    for bridge in two.bridges[1]:
        torch.nn.init.zeros_(bridge.output.weight)
    assert torch.equal(logits(two, ids), logits(one, ids))


def test_several_augs_decode_each_with_a_cache_of_its_own(ids):
    model = composed(aug=[llama(seed=2, width=16, heads=2, kv_heads=1), gpt2(3)])
    wide, mask = padded(ids, 3, 0)
    mask[0, :3] = 1
    outputs = [
        model.generate(wide, attention_mask=mask, max_new_tokens=6, num_beams=2, use_cache=use_cache, pad_token_id=0)
        for use_cache in (True, False)
    ]
    assert torch.equal(*outputs)
    cache = model(ids, use_cache=True).past_key_values
    assert len(cache.parts) == 5 and cache.augs[0] is not cache.augs[1]
    assert {cache.augs[0].layers[0].keys.shape[-1], cache.augs[1].layers[0].keys.shape[-1]} == {8}
