"""Checkpoints of composed models: small, strict, and bound to their bases."""

import json
import resource
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.stored import checkpoint
from tests.models import composed, llama

IDS = torch.arange(2, 14).view(2, 6)


@pytest.fixture
def saved(tmp_path):
    """Bases on disk, and a checkpoint of their composition."""
    llama(seed=1).save_pretrained(tmp_path / "anchor")
    llama(seed=2, width=16, heads=2, kv_heads=1).save_pretrained(tmp_path / "aug")
    model = composed(str(tmp_path / "anchor"), str(tmp_path / "aug"))
    model.save_pretrained(tmp_path / "composed")
    return model, tmp_path


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def test_save_and_load_keep_every_logit(saved):
    model, folder = saved
    loaded = ComposedModelForCausalLM.from_pretrained(folder / "composed")
    assert torch.equal(logits(loaded), logits(model))
    assert not loaded.training


def test_a_checkpoint_holds_bridges_only(saved):
    model, folder = saved
    file = folder / "composed" / "model.safetensors"
    assert load_file(file).keys() == model.stored_tensors().keys()
    assert all(name.startswith("bridges.") for name in model.stored_tensors())
    assert file.stat().st_size < 1.2 * sum(4 * each.numel() for each in model.stored_tensors().values())
    assert {path.name for path in (folder / "composed").iterdir()} == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "modeling_calm.py",
    }  # fmt: skip


@pytest.mark.slow
def test_auto_classes_load_it_after_import_calmctl(saved):
    model, folder = saved
    code = (
        "import calmctl, torch; from transformers import AutoModelForCausalLM as A;"
        f"m = A.from_pretrained({str(folder / 'composed')!r});"
        "print(type(m).__name__, m(torch.arange(2, 14).view(2, 6)).logits.double().sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, total = done.stdout.split()
    assert name == "ComposedModelForCausalLM"
    assert float(total) == pytest.approx(logits(model).double().sum().item(), abs=1e-3)


def test_a_moved_run_still_finds_its_bases(saved):
    model, folder = saved
    moved = folder.rename(folder.with_name("elsewhere"))
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(moved / "composed")), logits(model))


def test_merged_bases_make_a_checkpoint_self_contained(saved, tmp_path):
    model, folder = saved
    model.save_pretrained(folder / "whole", merge_bases=True)
    for name in ("anchor", "aug"):
        (folder / name).rename(folder / f"gone_{name}")
    whole = (folder / "whole").rename(folder / "moved")
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(whole)), logits(model))


@pytest.mark.parametrize("role, other", [
    ("anchor", lambda: llama(seed=7)),
    ("aug", lambda: llama(seed=7, width=16, heads=2, kv_heads=1)),
])  # fmt: skip
def test_another_base_is_refused_unless_allowed(saved, role, other):
    _, folder = saved
    other().save_pretrained(folder / role)
    with pytest.raises(UserError, match=f"the {role}.* is not the one this model was trained with"):
        ComposedModelForCausalLM.from_pretrained(folder / "composed")
    ComposedModelForCausalLM.from_pretrained(folder / "composed", allow_different_base=True)


def test_a_missing_base_names_the_place(saved):
    _, folder = saved
    (folder / "anchor").rename(folder / "gone")
    with pytest.raises(UserError, match="anchor is not at"):
        ComposedModelForCausalLM.from_pretrained(folder / "composed")
    ComposedModelForCausalLM.from_pretrained(folder / "composed", anchor=str(folder / "gone"))


@pytest.mark.parametrize("damage, message", [
    (lambda file: file.unlink(), "checkpoint is missing"),
    (lambda file: file.write_bytes(file.read_bytes()[:1000]), "checkpoint is damaged"),
    (lambda file: save_file({"other": torch.zeros(2)}, file), "missing keys .* unexpected keys"),
    (lambda file: save_file({k: v[:1].clone() for k, v in load_file(file).items()}, file), "has shape"),
], ids=["missing", "torn", "keys", "shapes"])  # fmt: skip
def test_a_bad_weight_file_is_one_clear_error(saved, damage, message):
    _, folder = saved
    damage(folder / "composed" / "model.safetensors")
    with pytest.raises(UserError, match=message):
        ComposedModelForCausalLM.from_pretrained(folder / "composed")


def test_what_is_saved_again_can_be_loaded_again(saved):
    """A base that was replaced or converted on purpose is the recorded one from then on."""
    model, folder = saved
    half = ComposedModelForCausalLM.from_pretrained(folder / "composed", dtype="bfloat16")
    half.save_pretrained(folder / "half", merge_bases=True)
    assert ComposedModelForCausalLM.from_pretrained(folder / "half").anchor.dtype == torch.bfloat16
    llama(seed=8).save_pretrained(folder / "other")
    other = ComposedModelForCausalLM.from_pretrained(
        folder / "composed", anchor=str(folder / "other"), allow_different_base=True
    )
    other.save_pretrained(folder / "again")
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(folder / "again")), logits(other))


def test_a_bases_habits_are_not_its_identity(saved):
    _, folder = saved
    file = folder / "anchor" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"use_cache": False, "key_of_a_later_version": 1}))
    ComposedModelForCausalLM.from_pretrained(folder / "composed")
    file.write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    with pytest.raises(UserError, match="differs in rms_norm_eps"):
        ComposedModelForCausalLM.from_pretrained(folder / "composed")


def test_the_generation_config_is_saved_loaded_and_the_models_own(saved):
    model, folder = saved
    model.generation_config.max_new_tokens = 3
    assert model.anchor.generation_config.max_new_tokens is None
    model.save_pretrained(folder / "composed")
    assert ComposedModelForCausalLM.from_pretrained(folder / "composed").generation_config.max_new_tokens == 3


def test_arguments_that_would_be_dropped_are_refused(saved):
    model, folder = saved
    with pytest.raises(TypeError, match="push_to_hub"):
        model.save_pretrained(folder / "x", push_to_hub=True)
    model.save_pretrained(folder / "x", is_main_process=False)
    assert not (folder / "x").exists()


def test_loading_in_another_type_checks_the_bases_first(saved):
    _, folder = saved
    loaded = ComposedModelForCausalLM.from_pretrained(folder / "composed", dtype="bfloat16")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert torch.isfinite(logits(loaded)).all()


def test_bridges_keep_the_type_they_were_saved_in(saved):
    model, folder = saved
    model.bridges.bfloat16()
    model.save_pretrained(folder / "composed")
    loaded = ComposedModelForCausalLM.from_pretrained(folder / "composed")
    assert {parameter.dtype for parameter in loaded.bridges.parameters()} == {torch.bfloat16}
    assert torch.equal(logits(loaded), logits(model))


def test_an_attention_implementation_reaches_the_bases_through_the_auto_classes(saved):
    _, folder = saved
    loaded = AutoModelForCausalLM.from_pretrained(folder / "composed", attn_implementation="eager")
    assert {base.config._attn_implementation for base in (loaded.anchor, *loaded.augs)} == {"eager"}


def test_offloaded_bases_are_recognised_and_saved(saved):
    model, folder = saved
    places = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "disk"}
    how = {"device_map": places, "offload_folder": str(folder / "offloaded")}
    loaded = ComposedModelForCausalLM.from_pretrained(folder / "composed", **how)
    assert next(loaded.anchor.model.layers.parameters()).is_meta
    assert torch.equal(logits(loaded), logits(model))
    loaded.save_pretrained(folder / "again", merge_bases=True)
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(folder / "again")), logits(model))


def test_merged_untrained_augs_are_read_rather_than_drawn(saved, monkeypatch):
    """Another version of torch or transformers may draw other weights."""
    _, folder = saved
    model = composed(str(folder / "anchor"), str(folder / "aug"), aug_seed=4)
    model.save_pretrained(folder / "merged", merge_bases=True)
    monkeypatch.setattr(checkpoint, "untrained", None)
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(folder / "merged")), logits(model))


def test_bases_given_have_to_be_as_many_as_were_composed(saved):
    model, folder = saved
    with pytest.raises(UserError, match="composed with 1 augs, but 0 are given"):
        ComposedModelForCausalLM.from_pretrained(folder / "composed", augs=[])
    loaded = ComposedModelForCausalLM.from_pretrained(folder / "composed", augs=str(folder / "aug"))
    assert torch.equal(logits(loaded), logits(model))


def test_a_full_disk_is_one_clear_error_and_spares_what_was_there(saved):
    model, folder = saved
    before = logits(model)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for parameter in model.composition_parameters().values():
        parameter.data.zero_()
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(UserError, match="model.safetensors: cannot be written"):
            model.save_pretrained(folder / "composed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(folder / "composed")), before)


def test_nothing_to_load_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="cannot load a model configuration"):
        compose(str(tmp_path), str(tmp_path))


def test_the_configuration_is_readable_json(saved):
    model, folder = saved
    config = json.loads((folder / "composed" / "config.json").read_text())
    assert config["model_type"] == "calm"
    assert config["connections"] == [[[0, 0], [1, 1], [2, 2]]]
    assert [base["relative_source"] for base in config["bases"]] == ["../anchor", "../aug"]


@pytest.mark.parametrize("arguments, message", [
    ({"dtype": "float99"}, "dtype='float99': no such floating-point type"),
    ({"dtype": "int8"}, "dtype='int8': no such floating-point type"),
    ({"device_map": "cuda:97"}, "device_map='cuda:97': that device is not there"),
    ({"device_map": {"": "nowhere"}}, "device_map='nowhere': that device is not there"),
], ids=str)  # fmt: skip
def test_types_and_devices_that_are_not_there_are_one_clear_error(saved, arguments, message):
    _, folder = saved
    with pytest.raises(UserError, match=message):
        compose(str(folder / "anchor"), str(folder / "aug"), **arguments)
    with pytest.raises(UserError, match=message):
        ComposedModelForCausalLM.from_pretrained(folder / "composed", **arguments)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}], ids=str)
def test_bases_are_placed_by_accelerate_where_told(saved, device_map):
    model, folder = saved
    placed = ComposedModelForCausalLM.from_pretrained(folder / "composed", device_map=device_map)
    assert torch.equal(logits(placed), logits(model))
