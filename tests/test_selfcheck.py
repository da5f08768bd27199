"""The self-check of a composition: it finds every fault, refuses no sound pair, and leaves everything as it was."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.modeling import probe, selfcheck
from calmctl.modeling import tokens as tokens_module
from calmctl.modeling.bridge import Bridge
from calmctl.modeling.composition import compose
from calmctl.modeling.probe import deviation, probe_ids
from calmctl.modeling.selfcheck import check_composition
from tests.families import FAMILIES
from tests.models import composed, llama
from tests.task_data import write_models

MEASURED = ("identity", "suffix", "padding", "cache", "storing")
SETTINGS = {
    "paper": {},
    "plain start": {"zero_init": False},
    "gate": {"gate": True, "dropout": 0.5},
    "norm and rotary": {"norm": True, "rotary": True},
    "prompts only": {"aug_reads": "prompt"},
    "several augs": {"aug": [llama(seed=2), llama(seed=3, width=16, heads=2, kv_heads=1)]},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
@pytest.mark.parametrize("trained", [False, True], ids=["new", "trained"])
def test_a_check_leaves_weights_gradients_mode_and_chance_as_they_were(settings, trained):
    model = composed(trained=trained, **settings).train()
    model.composition_parameters()["bridges.0.0.query.weight"].grad = torch.ones(32, 32)
    before = {name: (parameter.clone(), parameter.grad) for name, parameter in model.named_parameters()}
    chance = torch.get_rng_state()
    measured = check_composition(model)
    assert all(measured[name] <= 1e-5 for name in MEASURED)
    assert torch.equal(torch.get_rng_state(), chance) and model.training and model.bridges.training
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0]) and parameter.grad is before[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_no_sound_pair_is_refused(dtype):
    for name, build in FAMILIES.items():
        measured = check_composition(compose(build(1).to(dtype), build(2).to(dtype), every=1))
        assert measured["effect"] > 4 * measured["tolerance"], name


# Faults: what breaks, by a patch of what is named, and what the refusal says.


def sees_padding(mask: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda visible, _, *rest: mask(visible, None, *rest)


def looks_ahead(attention: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def looks(queries: Tensor, keys: Tensor, values: Tensor, *_: object) -> Tensor:
        return attention(queries, keys, values, torch.ones(queries.shape[-2], keys.shape[-2]).bool(), True)

    return looks


def a_little_more(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: forward(*args, **kwargs) + 0.01


def without_effect(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: forward(*args, **kwargs) * 0


def no_numbers(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: forward(*args, **kwargs) * float("nan")


def cut_off(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: forward(*args, **kwargs).detach()


def forgets_positions(rotate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda bridge, states, positions: rotate(bridge, states, positions - positions[:, :1])


def folded_wrongly(folded: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda bridge: folded(bridge) * 1.02


def loads_too_little(load: Callable[..., None]) -> Callable[..., None]:
    def loads(model, path):
        load(model, path)
        model.bridge_of(0, 0).key.weight.data.zero_()

    return loads


def crashes(_: object) -> Callable[..., None]:
    def crash(*_: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    return crash


FAULTS = [
    (Bridge, "forward", a_little_more, "with closed bridges, its logits are not the anchor's .by"),
    (Bridge, "forward", no_numbers, "with closed bridges, its logits are not the anchor's .by inf"),
    (Bridge, "forward", without_effect, "its bridges do not reach the logits"),
    (Bridge, "forward", cut_off, "RuntimeError with the gradient: element 0 of tensors does not require grad"),
    (Bridge, "folded", folded_wrongly, "decoding with a cache gives other logits than without .by"),
    (Bridge, "_rotate", forgets_positions, "decoding with a cache gives other logits than without .by"),
    (Bridge, "keys_values", crashes, "RuntimeError with closed bridges: no kernel$"),
    (tokens_module, "bridge_mask", sees_padding, "padding changes its logits .by"),
    ("calmctl.modeling.bridge", "_attention", looks_ahead, "logits of the first 4 tokens depend on later tokens .by"),
    (selfcheck, "load_parameters", loads_too_little, "stored and loaded again, bridges.0.0.key.weight is another"),
]


@pytest.mark.parametrize(("place", "name", "fault", "told"), FAULTS, ids=[fault.__name__ for _, _, fault, _ in FAULTS])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str)
def test_every_fault_is_found_and_named(place, name, fault, told, dtype, monkeypatch):
    if dtype == torch.bfloat16 and fault in (a_little_more, folded_wrongly):
        pytest.skip("lost in rounding")
    model = composed(llama(seed=1).to(dtype), llama(seed=2).to(dtype), trained=False, rotary=True)
    before = {name: parameter.clone() for name, parameter in model.composition_parameters().items()}
    if isinstance(place, str):
        monkeypatch.setattr(f"{place}.{name}", fault(getattr(__import__(place, fromlist=[name]), name)))
    else:
        monkeypatch.setattr(place, name, fault(getattr(place, name)))
    with pytest.raises(UserError, match=f"^self-check: LlamaForCausalLM with LlamaForCausalLM cannot .*: {told}"):
        check_composition(model)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.composition_parameters().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_what_only_rounding_moves_is_no_fault(dtype, monkeypatch):
    """In 16 bits everything is taken for a fault here; what is tried again in float32 is allowed what it always is."""
    allowed = {dtype: -1.0}
    monkeypatch.setattr(selfcheck, "tolerance", lambda bases: allowed.get(bases[0].dtype, probe.tolerance(bases)))
    model = half_composed(dtype)
    before = state_of(model)
    measured = check_composition(model)
    assert measured["rounding"] < 0.1 and all(measured[name] <= 1e-5 for name in MEASURED)
    assert measured["tolerance"] == pytest.approx(7e-4, rel=0.05)
    assert_as_before(model, before)


def half_composed(dtype: torch.dtype):
    """Return a model in 16 bits in which gradients and a 16-bit buffer have been left."""
    model = composed(llama(seed=1).to(dtype), llama(seed=2).to(dtype), trained=False, rotary=True).train()
    for name in ("bridges.0.0.query.weight", "anchor.model.norm.weight"):
        parameter = model.get_parameter(name)
        parameter.grad = torch.ones_like(parameter)
    model.anchor.register_buffer("left", torch.ones(3, dtype=dtype))
    return model


def state_of(model):
    return {
        name: (each, each.data_ptr(), each.dtype, each.data.clone(), each.grad)
        for name, each in (*model.named_parameters(), *model.named_buffers())
    }


def assert_as_before(model, before) -> None:
    assert model.training
    for name, each in (*model.named_parameters(), *model.named_buffers()):
        same, place, dtype, values, gradient = before[name]
        assert each is same and each.data_ptr() == place and each.dtype == dtype and each.grad is gradient, name
        assert torch.equal(each, values)


def out_of_memory_for(shape: torch.Size) -> Callable[[Tensor], Tensor]:
    def widened(tensor: Tensor) -> Tensor:
        if tensor.shape == shape and tensor.dtype == torch.bfloat16:
            raise torch.OutOfMemoryError("no room")
        return tensor.to(torch.float32)

    return widened


def wrong_in_float32(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda bridge, states, *rest: forward(bridge, states, *rest) + 0.01 * (states.dtype == torch.float32)


@pytest.mark.parametrize("fault", ["no room", "wrong there too"])
def test_what_cannot_be_tried_again_or_fails_again_is_refused_as_it_was(fault, monkeypatch):
    monkeypatch.setattr(selfcheck, "tolerance", lambda bases: -1.0)
    model = half_composed(torch.bfloat16)
    before, forward = state_of(model), Bridge.forward
    if fault == "no room":
        monkeypatch.setattr(torch.Tensor, "float", out_of_memory_for(model.anchor.lm_head.weight.shape))
    else:
        monkeypatch.setattr(Bridge, "forward", wrong_in_float32(forward))
    with pytest.raises(UserError, match=r"its logits are not the anchor's .by 0 of their spread; -1 is rounding"):
        check_composition(model)
    monkeypatch.undo()
    assert_as_before(model, before)


def test_overflow_in_float16_is_no_rounding():
    model = half_composed(torch.float16)
    model.augs[0].model.layers[0].mlp.register_forward_hook(lambda _module, _args, states: states * 60000 * 60000)
    before = state_of(model)
    with pytest.raises(UserError, match="cannot be composed: with closed bridges, its logits are not .* .by inf"):
        check_composition(model)
    assert_as_before(model, before)


def faulty_bases() -> dict[str, tuple[Callable, str]]:
    """Return what is wrong with a base, as something that is done to it, and what the refusal says."""

    def hook(change: Callable) -> Callable:
        return lambda base: base.model.register_forward_pre_hook(change, with_kwargs=True)

    def ignores_mask(_module, args, given):
        mask = given["attention_mask"]
        return args, given | {"attention_mask": None if mask is None else torch.ones_like(mask)}

    def looks_back(base):
        base.model.register_forward_hook(
            lambda _m, _a, output: setattr(output, "last_hidden_state", output.last_hidden_state.roll(1, 1))
        )

    def freezes_nothing(base):
        base.lm_head.weight.requires_grad_(True)

    def other_shape(base):
        base.model.register_parameter("extra", torch.nn.Parameter(torch.zeros(3), requires_grad=False))

    return {
        "ignores the mask": (hook(ignores_mask), "padding changes its logits"),
        "rolls its states": (looks_back, "logits of the first 4 tokens depend on later tokens"),
        "is not frozen": (freezes_nothing, "ValueError with the gradient: the LM head must be frozen"),
        "has more than it says": (other_shape, "loaded again, the anchor would have other parameters .model.extra"),
        "no finite numbers": (lambda base: base.lm_head.weight.data.fill_(float("nan")),
                              r"the anchor's logits are no finite numbers \(in torch.float32\)"),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(faulty_bases()))
def test_faults_of_bases_are_found_too(name):
    spoil, told = faulty_bases()[name]
    model = composed(trained=False)
    spoil(model.anchor)
    with pytest.raises(UserError, match=told):
        check_composition(model)


def test_deviations_are_shares_of_the_spread_at_the_worst_position():
    logits = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))
    assert deviation(logits, logits) == 0
    moved = logits.clone()
    moved[1, 2] += 0.5 * logits[1, 2].std()
    assert deviation(moved, logits) == pytest.approx(0.5, rel=0.05)
    assert deviation(moved * 100, logits * 100) == pytest.approx(deviation(moved, logits), rel=1e-4)
    # What a model rules out is no difference where both do; anything else that is no number is one.
    logits[..., 7], moved[..., 7] = -torch.inf, -torch.inf
    assert deviation(moved, logits) == pytest.approx(0.5, rel=0.05)
    moved[0, 0, 7] = 0
    assert deviation(moved, logits) == float("inf") == deviation(logits * float("nan"), logits)
    assert deviation(torch.zeros(1, 4), torch.zeros(1, 4)) == 0


def test_tokens_of_images_and_padding_are_not_tried():
    model = llama(image_token_id=7, audio_config={"end_token_id": [8, 9], "token": None})
    tried = set(probe_ids([model], 50, 50).flatten().tolist())
    assert tried == set(range(50)) - {0, 1, 7, 8, 9}


def test_a_run_records_its_check_and_a_pair_that_fails_is_refused_before_it_is_trained(tmp_path, capsys, monkeypatch):
    model, data = write_models(tmp_path)["plain"], tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a b", "completion": " c"}\n' * 4)
    command = ["compose", "--anchor", str(model), "--aug", str(model), "--data", str(data), "train.steps=1"]
    monkeypatch.setattr(tokens_module, "bridge_mask", sees_padding(tokens_module.bridge_mask))
    assert main([*command, "--out", str(tmp_path / "refused")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "self-check" in line]
    assert "padding changes its logits" in line
    assert not (tmp_path / "refused" / "model").exists() and not list(tmp_path.glob("refused/.self*"))
    monkeypatch.undo()
    assert main([*command, "--out", str(tmp_path / "refused")]) == 0
    recorded = json.loads((tmp_path / "refused" / "run.json").read_text())["self_check"]
    assert recorded["padding"] < recorded["tolerance"] < recorded["effect"]
