"""Bridges that read standardised streams: what is found of the streams, where it is kept, and the plain form."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from calmctl import ComposedModelForCausalLM
from calmctl.errors import UserError
from calmctl.modeling.bridge import Bridge, BridgeConfig
from calmctl.modeling.residual_streams import LEAST_DEVIATION, normed
from calmctl.modeling.tokenizers.aug_tokens import AugHistory
from calmctl.modeling.tokenizers.segmentation import NEVER
from calmctl.training.compositions import chosen
from tests import own_tokenizers
from tests.models import composed, llama, logits
from tests.test_validation import compose_config, folder  # noqa: F401
from tests.trained import run_composition

OUTLIER, SINK = 3, 500.0


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))


def outlying(seed: int):
    """Return a model with a dimension that is large and hardly varies, and a first token that is much larger still."""
    model = llama(seed=seed)

    def grow(_module, _args, output):
        output = output.clone()
        output[..., OUTLIER] += 5.0
        output[:, 0] *= SINK
        return output

    model.model.layers[0].register_forward_hook(grow)
    return model


def streams_of(model, batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return what the matrices of a model's bridges are given by both streams, bridge by bridge."""
    found: list[list[torch.Tensor]] = []
    handles = []
    for bridge in model.model.bridges.modules():
        if isinstance(bridge, Bridge):
            pair: list[torch.Tensor] = []
            found.append(pair)
            for stream in (bridge.aug_stream, bridge.anchor_stream):
                handles.append(stream.register_forward_hook(lambda _m, _a, output, pair=pair: pair.append(output)))
    with torch.no_grad():
        model(**batch, use_cache=False)
    for handle in handles:
        handle.remove()
    return [tuple(pair) for pair in found]


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_what_matrices_are_given_varies_alike_in_all_dimensions(side):
    model = composed(outlying(1), outlying(2), trained=False)
    ids = torch.randint(3, 50, (6, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    if side != "none":
        mask[::2, slice(0, 4) if side == "left" else slice(8, 12)] = 0
    counted = mask.bool() & (mask.cumsum(1) > 1)
    model.calibrate(
        [{"input_ids": part, "attention_mask": its} for part, its in zip(ids.split(2), mask.split(2), strict=True)]
    )
    for pair in streams_of(model, {"input_ids": ids, "attention_mask": mask}):
        for states in pair:
            states = states[counted]
            torch.testing.assert_close(states.mean(0), torch.zeros(states.shape[1]), atol=1e-3, rtol=0)
            held = states.std(0) < 0.9  # what hardly varies is not blown up further
            assert held.nonzero().flatten().tolist() in ([], [OUTLIER])
            torch.testing.assert_close(states.std(0)[~held], torch.ones(int((~held).sum())), atol=0.1, rtol=0)
    assert model.bridge_of(0, 0).aug_stream.deviation.min() >= LEAST_DEVIATION


def test_an_aug_with_a_tokenizer_of_its_own_is_read_by_its_own_tokens():
    model = own_tokenizers.composed(trained=False)
    ids = own_tokenizers.text_ids("gpt2-llama3", 0)
    model.calibrate([{"input_ids": ids}])
    (of_aug, of_anchor), *_ = streams_of(model, {"input_ids": ids})
    assert of_anchor.shape[1] == ids.shape[1] != of_aug.shape[1]
    assert_standardised(of_anchor[:, 1:].flatten(0, 1))
    history = AugHistory().read(model.model.segmenters[0], ids, None)
    real = history.born != NEVER
    assert_standardised(of_aug[real & (real.cumsum(1) > 1)])


def assert_standardised(states: torch.Tensor) -> None:
    torch.testing.assert_close(states.mean(0), torch.zeros(states.shape[1]), atol=1e-3, rtol=0)
    assert 0.9 < states.std(0).median() < 1.1


def test_documents_of_packed_rows_count_without_padding_and_their_first_tokens():
    model, ids = composed(trained=False), torch.randint(3, 50, (1, 12), generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 0, 0]])
    model.calibrate([{"input_ids": ids, "position_ids": positions}])
    for pair in streams_of(model, {"input_ids": ids, "position_ids": positions}):
        for states in pair:
            counted = (positions > 0) & ((positions > 0).cumsum(1) > 1)
            torch.testing.assert_close(states[counted].mean(0), torch.zeros(states.shape[2]), atol=1e-3, rtol=0)


def test_an_aug_that_reads_prompts_is_read_as_far():
    model, labels = composed(trained=False, aug_reads="prompt"), torch.full((2, 9), -100)
    ids = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    labels[:, 5:] = ids[:, 5:]
    model.calibrate([{"input_ids": ids, "labels": labels}])
    prompts = composed(trained=False, aug_reads="prompt")
    prompts.calibrate([{"input_ids": ids[:, :5]}])
    streams = [each.bridge_of(0, 0) for each in (model, prompts)]
    torch.testing.assert_close(streams[0].aug_stream.deviation, streams[1].aug_stream.deviation)
    assert not torch.allclose(streams[0].anchor_stream.deviation, streams[1].anchor_stream.deviation, rtol=1e-3)


@pytest.mark.parametrize("rows", ["left", "packed"])
def test_padding_that_is_nothing_but_zeros_gives_gradients(rows, ids):
    model = composed().train()
    model.anchor.get_input_embeddings().weight.data[0] = 0
    ids = ids.clone()
    if rows == "left":
        ids[0, :3] = 0
        batch = {"attention_mask": (ids != 0).long()}
    else:
        ids[:, 6:] = 0
        batch = {"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 0, 0, 0]] * 2)}
    labels = ids.masked_fill(ids == 0, -100)
    model(input_ids=ids, labels=labels, use_cache=False, **batch).loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.composition_parameters().values())


def test_examples_to_look_at_are_few_and_those_that_are_long_leave_room_for_others():
    lengths = np.array([9000, *[20] * 50])
    for seed in range(8):
        parts = list(chosen(lengths, seed))
        rows = np.concatenate(parts)
        assert len(set(rows.tolist())) == len(rows) <= 32 and (len(rows) == 32 or rows.tolist() == [0])
        assert all(len(part) == 1 or len(part) * lengths[part].max() <= 2048 for part in parts)
    assert [part.tolist() for part in chosen(np.array([5]), 0)] == [[0]]


def test_few_tokens_are_not_believed():
    model, many = composed(trained=False), torch.randint(3, 50, (8, 12), generator=torch.Generator().manual_seed(1))
    model.calibrate([{"input_ids": many[:1, :3]}])
    for pair in streams_of(model, {"input_ids": many}):
        assert all(states.square().mean().sqrt() < 5 for states in pair)


def test_calibration_looks_past_the_bridges_and_changes_nothing_else(ids):
    closed, opened = composed(trained=False).train(), composed().train()
    before = {name: parameter.clone() for name, parameter in opened.named_parameters()}
    for model in (closed, opened):
        model.calibrate([{"input_ids": ids, "labels": ids}])
    for name, buffer in closed.bridges.named_buffers():
        assert torch.equal(buffer, opened.bridges.get_buffer(name))
    assert all(torch.equal(parameter, before[name]) for name, parameter in opened.named_parameters())
    assert opened.training and not opened.anchor.training
    assert not any(module._forward_hooks for module in opened.bridges.modules())


def test_too_little_leaves_it_as_it_is():
    model = composed(trained=False)
    model.calibrate([{"input_ids": torch.tensor([[5]])}])
    assert all(bool((buffer == ("deviation" in name)).all()) for name, buffer in model.bridges.named_buffers())


def test_updates_grow_with_the_stream_they_are_added_to():
    torch.manual_seed(0)
    bridge = Bridge(BridgeConfig(zero_init=False), 16, 32, 4)
    states, positions = torch.randn(2, 5, 32), torch.arange(5).expand(2, 5)
    keys, values = bridge.keys_values(torch.randn(2, 5, 16), positions)
    update = bridge(states, positions, keys, values, None)
    grown = bridge(1000 * states, positions, keys, values, None)
    torch.testing.assert_close(grown, 1000 * update, rtol=1e-4, atol=1e-4)
    other = Bridge(BridgeConfig(zero_init=False, share=1.8), 16, 32, 4)
    other.load_state_dict(bridge.state_dict())
    torch.testing.assert_close(other(states, positions, keys, values, None), 3 * update)
    # Dimensions that vary little are changed little.
    other.anchor_stream.deviation[:16] = 0.01
    wide = Bridge(BridgeConfig(zero_init=False, share=1.8, per_dimension=False), 16, 32, 4)
    wide.load_state_dict(other.state_dict())
    narrow = torch.tensor([0.01, 1.0]).repeat_interleave(16)
    asked = (states, positions, keys, values, None)
    torch.testing.assert_close(other(*asked), wide(*asked) * narrow)
    # The aug's scale does not matter at all.
    one, two = (bridge.keys_values(scale * torch.ones(1, 1, 16), positions[:1, :1]) for scale in (1, 1000))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_the_plain_form_has_no_streams_and_is_what_older_checkpoints_are_read_as(tmp_path, ids):
    model = composed(standardize=False)
    assert not list(model.bridges.named_buffers()) and model.stored_tensors() == model.composition_parameters()
    model.save_pretrained(tmp_path, merge_bases=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["bridge"]["standardize"], config["bridge"]["share"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(tmp_path), ids), logits(model, ids))


def test_older_checkpoints_scale_their_updates_by_the_whole_stream(tmp_path, ids):
    model = composed(per_dimension=False, share=0.3)
    model.calibrate([{"input_ids": ids}])
    model.save_pretrained(tmp_path, merge_bases=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["bridge"]["per_dimension"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = ComposedModelForCausalLM.from_pretrained(tmp_path)
    assert not again.bridges[0][0].per_dimension
    assert torch.equal(logits(again, ids), logits(model, ids))
    config["bridge"]["later"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="bridge.later is not known; was it written by a later version"):
        ComposedModelForCausalLM.from_pretrained(tmp_path)


def test_a_training_calibrates_first_and_stores_what_it_found(folder, tmp_path):  # noqa: F811
    config = compose_config(folder, tmp_path, {"steps": 4, "save_every": 2})
    run_composition(config, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model" / "model.safetensors")
    model = ComposedModelForCausalLM.from_pretrained(tmp_path / "out" / "model")
    buffers = dict(model.bridges.named_buffers())
    assert buffers and all(torch.equal(stored[f"bridges.{name}"], buffer) for name, buffer in buffers.items())
    assert not any(bool((buffer == ("deviation" in name)).all()) for name, buffer in buffers.items())
    assert normed(torch.full((1, 4), 7.0)).tolist() == [[1.0] * 4]
