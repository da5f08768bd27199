"""States that are kept from epoch to epoch: the same losses, gradients and trainings as without them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.runs.run import Run
from calmctl.training import state_store
from calmctl.training.batches import Batches
from calmctl.training.configs import ComposeConfig
from calmctl.training.examples import load_examples
from calmctl.training.packing import pack
from calmctl.training.settings import TrainSettings
from calmctl.training.state_store import bytes_of_states, keep_states, where_to_keep
from tests.families import FAMILIES
from tests.models import composed, gpt2, llama, opened
from tests.own_tokenizers import PAIRS, base
from tests.sums import sums_config, write_sums
from tests.trained import run_composition, run_training

SETTINGS = TrainSettings(steps=8, batch_size=4, lr=0.01, warmup_steps=2, save_every=3, log_every=1, bucket_width=4)


def answered(model: ComposedModelForCausalLM, batch: dict[str, object]) -> tuple[float, list[torch.Tensor]]:
    """Return the loss of a batch and the gradients of the bridges."""
    model.zero_grad()
    model.train()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    return loss.item(), [parameter.grad.clone() for parameter in model.composition_parameters().values()]


def require_equal(model: ComposedModelForCausalLM, batches: Batches, folder: Path | None = None) -> None:
    """Check that all examples, in batches unlike those that their states were found in, are answered the same."""
    assert model.training is False
    plain = [batches.collate(rows) for rows in (np.arange(3), np.array([5, 1]), np.array([4]))]
    batches.store = keep_states(model, batches, "fp32", folder)
    kept = [batches.collate(rows) for rows in (np.arange(3), np.array([5, 1]), np.array([4]))]
    for without, with_them in zip(plain, kept, strict=True):
        assert "kept_states" in with_them
        (loss, gradients), (expected, theirs) = answered(model, with_them), answered(model, without)
        assert loss == pytest.approx(expected, rel=1e-5)
        for ours, other in zip(gradients, theirs, strict=True):
            torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-6)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    write_sums(folder)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    texts = [json.dumps({"text": row["prompt"] + row["completion"]}) + "\n" for row in rows]
    (folder / "texts.jsonl").write_text("".join(texts))
    for name, seed in (("anchor", 1), ("aug", 2)):
        run_training(replace(sums_config(folder, steps=0), seed=seed), folder / name)
    return folder


def examples(folder: Path, name: str = "train"):
    from transformers import AutoTokenizer

    return load_examples(folder / f"{name}.jsonl", AutoTokenizer.from_pretrained(folder / "tokenizer"), SETTINGS)


@pytest.mark.parametrize("settings", [
    {}, {"connections": [[0, 1], [2, 2]]}, {"aug_reads": "prompt"}, {"norm": True, "rotary": True},
], ids=str)  # fmt: skip
def test_losses_and_gradients_are_those_without(folder, settings):
    require_equal(composed(**settings), Batches(examples(folder), SETTINGS, 0, 0))


def test_kept_on_disk_in_packed_rows_and_with_several_augs(folder, tmp_path):
    several = opened(compose(llama(seed=1), [llama(seed=2), gpt2(seed=3)], every=1))
    require_equal(several, Batches(examples(folder), SETTINGS, 0, 0), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"anchor", *(f"aug_{a}_{n}" for a in (0, 1) for n in range(3))}
    packed = pack(examples(folder, "texts"), 20)
    require_equal(composed(), Batches(packed, SETTINGS, 0, 0))


@pytest.mark.parametrize("pair", ["gpt2-llama3", "gemma-qwen"])
def test_kept_of_augs_with_tokenizers_of_their_own(folder, pair):
    from calmctl.training.aug_examples import with_aug_tokens

    tokenizers = [make() for make in PAIRS[pair]]
    bases = [base("llama", each, seed) for seed, each in enumerate(tokenizers)]
    model = opened(compose(*bases, every=1, tokenizers=tokenizers))
    read = load_examples(folder / "train.jsonl", tokenizers[0], replace(SETTINGS, append_eos=False))
    require_equal(model, Batches(with_aug_tokens(read, model.model.segmenters, None), SETTINGS, 0, 0))


FAST = ("Gemma 3", "Gemma 4", "GPT-2")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def test_every_family_goes_on_from_kept_states_or_is_refused(folder, name):
    model = opened(compose(FAMILIES[name](1), FAMILIES[name](2), connections=[[0, 1]]))
    batches = Batches(examples(folder), SETTINGS, 0, 0)
    if name == "Gemma 4":  # its upper layers attend to keys of lower ones
        with pytest.raises(UserError, match="train.keep_states: layers of the anchor read more of others"):
            keep_states(model, batches, "fp32")
    else:
        require_equal(model, batches)


def test_layers_that_share_more_than_their_output_are_refused(folder):
    model = composed(connections=[[2, 1]])
    seen: dict[str, torch.Tensor] = {}
    first, last = model.anchor.model.layers[0], model.anchor.model.layers[2]
    model.anchor.model.register_forward_pre_hook(lambda _m, _a: seen.clear())
    first.self_attn.register_forward_hook(lambda _m, _a, output: seen.update(states=output[0]))
    last.register_forward_hook(lambda _m, _a, output: output + seen.pop("states", 0.0))
    with pytest.raises(UserError, match="train.keep_states: layers of the anchor read more of others"):
        keep_states(model, Batches(examples(folder), SETTINGS, 0, 0), "fp32")


def config(folder: Path, keep: str, **settings: object) -> ComposeConfig:
    train = replace(SETTINGS, keep_states=keep, **settings)
    validation = str(folder / "validation.jsonl")
    data, paths = str(folder / "train.jsonl"), (str(folder / "anchor"), (str(folder / "aug"),))
    return ComposeConfig(*paths, every=1, dataset=data, seed=3, validation=validation, train=train)


def losses(run: Run, *names: str) -> list[float]:
    return [row[name] for row in run.read_jsonl() for name in names or ("loss", "validation_loss") if name in row]


def test_a_training_is_the_same_wherever_states_are_kept(folder, tmp_path):
    runs = {keep: run_composition(config(folder, keep), tmp_path / keep) for keep in ("none", "memory", "disk")}
    for keep in ("memory", "disk"):
        assert losses(runs[keep]) == pytest.approx(losses(runs["none"]), rel=1e-4)
        start = [losses(runs[each], "validation_loss", "anchor_loss")[:2] for each in (keep, "none")]
        assert start[0] == start[1]  # before the first step, and so in each other that the same steps have led to
        assert runs[keep].facts["kept_states"] == {"training": keep, "validation": keep}
        assert not (tmp_path / keep / "kept_states").exists()
    weights = [load_file(tmp_path / keep / "model" / "model.safetensors") for keep in ("memory", "disk")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert run_composition(config(folder, "none"), tmp_path / "disk").is_complete  # it is how, and not what


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_the_same_numbers(folder, tmp_path, monkeypatch):
    straight = run_composition(config(folder, "memory"), tmp_path / "straight")
    append = Run.append_jsonl

    def interrupt(run: Run, row: dict, **options: bool) -> None:
        append(run, row, **options)
        if row["step"] == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "append_jsonl", interrupt)
        run_composition(config(folder, "disk"), tmp_path / "resumed")
    assert not (tmp_path / "resumed" / "kept_states").exists()
    assert losses(run_composition(config(folder, "memory"), tmp_path / "resumed")) == losses(straight)


def test_auto_keeps_what_is_looked_at_twice_and_has_room(folder, monkeypatch):
    model, read = composed(), examples(folder)
    auto = replace(SETTINGS, keep_states="auto")
    assert where_to_keep(auto, model, read, 1.9) == "none" and where_to_keep(auto, model, read, 2.0) == "memory"
    tokens = int(read.lengths.sum())
    assert bytes_of_states(model, read) == tokens * 4 * (32 + 3 * 16)
    monkeypatch.setattr(state_store, "MOST_BYTES", bytes_of_states(model, read) - 1)
    assert where_to_keep(auto, model, read, 9.0) == "none"
    assert where_to_keep(replace(auto, keep_states="disk"), model, read, 0.1) == "disk"
