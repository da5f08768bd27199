"""Adapters that peft has stored: a folder of one is a base like any other; models that hold some are refused."""

import json
import os
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from calmctl import ComposedModelForCausalLM, adapt, compose
from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.modeling.bases.locating import adapted_model, source_sha256
from calmctl.modeling.bases.sources import find_tokenizer, load_base
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.models import composed, llama, logits

# What peft itself asks of a model has another name by now.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.arange(2, 14).view(2, 6)
LORA = {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}


def random_adapters(model: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return model


def adapter(folder: Path, config: peft.PeftConfig, base: str = "../base", seed: int = 1) -> nn.Module:
    """Save a base and an adapter of it below a folder, and return both together."""
    model = llama(seed=seed, layers=2, width=16)
    if not (folder / "base").exists():
        model.save_pretrained(folder / "base")
        build_word_tokenizer(["ab", "cd"], ["solve:"]).save_pretrained(folder / "base")
    wrapped = random_adapters(peft.get_peft_model(model, config)).eval()
    wrapped.save_pretrained(folder / "adapter")
    name_base(folder / "adapter", base)
    return wrapped


def name_base(folder: Path, base: str | None) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": base}))


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft")
    return folder, logits(adapter(folder, peft.LoraConfig(**LORA)), IDS)


KINDS = {
    "DoRA": peft.LoraConfig(use_dora=True, **LORA),
    "head trained too": peft.LoraConfig(modules_to_save=["lm_head"], **LORA),
    "rank-stabilised, with biases": peft.LoraConfig(use_rslora=True, bias="none", **LORA),
    "IA3": peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LoHa": peft.LoHaConfig(r=2, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_of_every_kind_are_merged(kind, tmp_path):
    expected = logits(adapter(tmp_path, KINDS[kind]), IDS)
    torch.testing.assert_close(logits(load_base(tmp_path / "adapter"), IDS), expected, atol=1e-5, rtol=1e-4)


def test_a_folder_of_an_adapter_is_a_base_in_every_role(stored, tmp_path):
    folder, expected = stored
    for name in ("base", "adapter"):
        shutil.copytree(folder / name, tmp_path / name)
    source = str(tmp_path / "adapter")
    assert find_tokenizer(source).get_vocab() == find_tokenizer(str(tmp_path / "base")).get_vocab()
    torch.testing.assert_close(logits(compose(source, source, every=1), IDS), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits(adapt(source, "series", size=2), IDS), expected, atol=1e-5, rtol=1e-4)
    model = composed(source, str(tmp_path / "base"))
    model.save_pretrained(tmp_path / "composed")
    model.save_pretrained(tmp_path / "whole", merge_bases=True)
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(moved / "composed"), IDS), logits(model, IDS))
    before = source_sha256(str(moved / "adapter"))
    weights = load_file(moved / "adapter" / "adapter_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in weights.items()}, moved / "adapter" / "adapter_model.safetensors")
    assert source_sha256(str(moved / "adapter")) != before
    with pytest.raises(UserError, match=r"the anchor .* \(differs in weights_sha256\)"):
        ComposedModelForCausalLM.from_pretrained(moved / "composed")
    shutil.rmtree(moved / "adapter")
    assert torch.equal(logits(ComposedModelForCausalLM.from_pretrained(moved / "whole"), IDS), logits(model, IDS))


def test_commands_take_one(stored, capsys):
    folder, _ = stored
    assert main(["generate", "solve: 1 =", "--model", str(folder / "adapter"), "-n", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_updates_are_rounded_once(tmp_path):
    """The weights are those of a sum in float64, so that a fingerprint does not depend on the machine's float32."""
    adapter(tmp_path, peft.LoraConfig(**LORA))
    base, merged = load_base(tmp_path / "base", dtype="bfloat16"), load_base(tmp_path / "adapter", dtype="bfloat16")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    one, two = (tensors[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "BA")
    update = one @ two * 2  # alpha 8 / rank 4
    found = merged.get_submodule(name).weight
    assert found.dtype == torch.bfloat16
    exact = base.get_submodule(name).weight.double() + update
    assert (found.double() - exact).abs().max() <= 2 * exact.abs().max() * torch.finfo(torch.bfloat16).eps


def damaged(folder: Path, change) -> None:
    adapter(folder, peft.LoraConfig(**LORA))
    change(folder / "adapter")


def prompt_tuning(folder: Path) -> None:
    shutil.rmtree(folder)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    adapter(folder.parent, config)


def renamed(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({f"x.{name}": tensor for name, tensor in weights.items()}, folder / "adapter_model.safetensors")


def another_base(folder: Path) -> None:
    llama(width=24, layers=2).save_pretrained(folder.parent / "base")


def cycle(folder: Path) -> None:
    name_base(folder, str(folder))


def both(folder: Path) -> None:
    llama(layers=1, width=16).save_pretrained(folder)


FAULTS = {
    "no base named": (lambda folder: name_base(folder, None), "does not name the model"),
    "a base that is gone": (lambda folder: name_base(folder, "/no/such/base"), "is for, /no/such/base, is not there"),
    "its own base": (cycle, "in the end, for itself"),
    "no weights": (lambda folder: (folder / "adapter_model.safetensors").unlink(), "an adapter without weights"),
    "cut off": (lambda folder: os.truncate(folder / "adapter_model.safetensors", 2000), "damaged or cut off"),
    "other names": (renamed, "does not fit .* missing"),
    "another base": (another_base, "cannot load an adapter from .*size mismatch"),
    "virtual tokens": (prompt_tuning, "PROMPT_TUNING, which cannot be merged"),
    "for classification": (lambda folder: name_task(folder, "SEQ_CLS"), "an adapter for SEQ_CLS"),
    "an unknown kind": (lambda folder: name_task(folder, "CAUSAL_LM", "QUORA"), "cannot load an adapter"),
    "a model beside it": (both, "holds a model and an adapter"),
}  # fmt: skip


def name_task(folder: Path, task: str, kind: str = "LORA") -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"task_type": task, "peft_type": kind}))


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_merged_is_one_line(fault, tmp_path):
    change, message = FAULTS[fault]
    damaged(tmp_path, change)
    with pytest.raises(UserError, match=message) as error:
        load_base(tmp_path / "adapter")
    assert "\n" not in str(error.value) and "adapter" in str(error.value)


def test_objects_with_adapters_are_refused_in_every_role():
    wrapped = peft.get_peft_model(llama(), peft.LoraConfig(**LORA))
    added = llama()
    added.add_adapter(peft.LoraConfig(**LORA))
    for model in (wrapped, wrapped.base_model.model, added):
        for bases in ((model, llama()), (llama(), model), (llama(), [model])):
            with pytest.raises(UserError, match="with adapters of peft in it cannot be a base: merge them first"):
                compose(*bases, every=1)
        with pytest.raises(UserError, match="with adapters of peft in it"):
            adapt(model, "lora", size=2)
    compose(wrapped.merge_and_unload(), llama(), every=1)
    for thing in (nn.Linear(2, 2), None, 3):
        with pytest.raises(UserError, match="cannot be a base; give a model of transformers"):
            compose(thing, llama(), every=1)


def test_composed_models_take_no_adapters(tmp_path):
    model = composed()
    with pytest.raises(UserError, match="takes no adapters of peft"):
        model.add_adapter(peft.LoraConfig(**LORA))
    with pytest.raises(UserError, match="takes no adapters of peft"):
        model.load_adapter("somewhere")
    with pytest.raises(UserError, match="adapters of peft"):
        peft.get_peft_model(model, peft.LoraConfig(**LORA)).base_model.model.save_pretrained(tmp_path)


def test_a_folder_with_the_name_of_an_owner_on_the_hub_does_not_hide_an_adapters_base(stored, tmp_path, monkeypatch):
    shutil.copytree(stored[0] / "adapter", tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    for base, found in (("owner/base", "owner/base"), ("adapter/base", "adapter/base@main")):
        name_base(tmp_path / "adapter", base)
        assert adapted_model("adapter") == found
