"""A composed model in a process that never imported calmctl: `trust_remote_code=True` is enough, and is needed."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, pipeline

from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.configuration import ComposedConfig
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.models import composed, llama, opened
from tests.own_tokenizers import base
from tests.tokenizer_families import gpt2_style, llama3_style


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bases, and a checkpoint of their composition with a tokenizer."""
    folder = tmp_path_factory.mktemp("remote")
    tokenizer = build_word_tokenizer(["apple", "pear"], ["solve:"])
    for name, model in (("anchor", llama(seed=1)), ("aug", llama(seed=2, width=16, heads=2, kv_heads=1))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    composed(str(folder / "anchor"), str(folder / "aug")).save_pretrained(folder / "composed")
    tokenizer.save_pretrained(folder / "composed")
    tokenizers = gpt2_style(), llama3_style()
    bases = [base("llama", each, seed) for seed, each in enumerate(tokenizers)]
    own = opened(compose(*bases, every=1, tokenizers=tokenizers))
    own.save_pretrained(folder / "two-tokenizers", merge_bases=True)
    return folder


def run(folder, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, outside the checkout."""
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules")}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def total(model) -> float:
    with torch.no_grad():
        return model(torch.arange(2, 14).view(2, 6)).logits.double().sum().item()


TOTAL = "m(torch.arange(2, 14).view(2, 6)).logits.double().sum().item()"


@pytest.mark.slow
@pytest.mark.parametrize("name, more", [
    ("composed", set()),
    ("two-tokenizers", {"anchor_tokenizer.json", "aug_0_tokenizer.json", "anchor", "aug_0"}),
])  # fmt: skip
def test_trust_remote_code_needs_no_import(folder, name, more):
    done = run(folder, f"""
import sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
c = AutoConfig.from_pretrained("{name}", trust_remote_code=True)
m = AutoModelForCausalLM.from_pretrained("{name}", trust_remote_code=True)
m.save_pretrained("again-{name}", merge_bases={bool(more)})
print({TOTAL})
again = AutoModelForCausalLM.from_pretrained("again-{name}", trust_remote_code=True)
import calmctl
assert type(c) is type(m.config) is calmctl.ComposedConfig, type(c)
assert type(m) is type(again) is calmctl.ComposedModelForCausalLM, type(m)
""")  # fmt: skip
    assert done.returncode == 0, done.stderr
    model, again = AutoModelForCausalLM.from_pretrained(folder / name), folder / f"again-{name}"
    assert float(done.stdout) == pytest.approx(total(model), abs=1e-3)
    assert {path.name for path in again.iterdir()} == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "modeling_calm.py", *more,
    }  # fmt: skip
    assert total(AutoModelForCausalLM.from_pretrained(again)) == total(model)


def test_without_trust_and_import_transformers_explains(folder):
    done = run(folder, 'from transformers import AutoConfig; AutoConfig.from_pretrained("composed")')
    assert done.returncode != 0
    assert "contains custom code" in done.stderr and "trust_remote_code=True" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("start, argument", [("", ", trust_remote_code=True"), ("import calmctl", "")])
def test_a_pipeline_generates(folder, start, argument):
    done = run(folder, f"""
{start}
from transformers import pipeline
generate = pipeline("text-generation", model="composed"{argument})
print(generate("solve: 1 + 2 =", max_new_tokens=5, do_sample=False, suppress_tokens=[0, 1, 2])[0]["generated_text"])
""")  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = pipeline("text-generation", model=str(folder / "composed"))
    expected = here("solve: 1 + 2 =", max_new_tokens=5, do_sample=False, suppress_tokens=[0, 1, 2])[0]["generated_text"]
    assert done.stdout.strip() == expected.strip()
    assert len(expected) > len("solve: 1 + 2 =")


def test_classes_are_the_imported_ones_with_and_without_trust(folder):
    for arguments in ({}, {"trust_remote_code": True}):
        assert type(AutoConfig.from_pretrained(folder / "composed", **arguments)) is ComposedConfig
        model = AutoModelForCausalLM.from_pretrained(folder / "composed", **arguments)
        assert type(model) is ComposedModelForCausalLM


def test_a_loaded_model_can_be_built_from_its_configuration(folder):
    """`from_config` of a loaded configuration makes a model of random weights, as for any other model."""
    config = AutoConfig.from_pretrained(folder / "composed")
    model = AutoModelForCausalLM.from_config(config)
    assert type(model) is ComposedModelForCausalLM and torch.isfinite(torch.tensor(total(model)))


def test_the_configuration_names_the_classes_and_no_absolute_path(folder):
    text = (folder / "composed" / "config.json").read_text()
    assert json.loads(text)["auto_map"] == {
        "AutoConfig": "modeling_calm.ComposedConfig",
        "AutoModelForCausalLM": "modeling_calm.ComposedModelForCausalLM",
    }
    assert str(folder) not in text
