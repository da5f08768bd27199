"""Code that lies beside a model is run where the user says so, and nowhere else; nobody is asked on standard input."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch

from calmctl import ComposedModelForCausalLM, adapt, compose
from calmctl.cli.main import main
from calmctl.errors import UserError
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.models import llama, logits

IDS = torch.arange(2, 14).view(2, 6)
CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path(__file__).parent.joinpath("was-run").touch()

class OwnConfig(LlamaConfig):
    model_type = "own_llama"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A base that needs its own code, one that does not, and data."""
    folder = tmp_path_factory.mktemp("trusted")
    for name, seed in (("own", 1), ("plain", 2)):
        llama(seed=seed, layers=2, width=16).save_pretrained(folder / name)
        build_word_tokenizer(["ab", "cd"], ["solve:"]).save_pretrained(folder / name)
    (folder / "own" / "own.py").write_text(CODE)
    file = folder / "own" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "own_llama", "auto_map": AUTO_MAP}))
    (folder / "data.jsonl").write_text('{"prompt": "solve: 1 =", "completion": " 1"}\n' * 4)
    return folder


def commands(folder: Path) -> list[list[str]]:
    own, plain, data = (str(folder / name) for name in ("own", "plain", "data.jsonl"))
    training = ["--data", data, "train.steps=1", "train.batch_size=2", "train.warmup_steps=0", "train.threads=1"]
    return [
        ["generate", "solve: 1 =", "--model", own, "-n", "2", "--json"],
        ["compose", "--anchor", own, "--aug", plain, "every=1", *training],
        ["compose", "--anchor", plain, "--aug", own, "every=1", *training],
        ["train", "aug", "--base", own, *training],
        ["baseline", "lora", "--anchor", own, "size=2", *training],
    ]


@pytest.mark.parametrize("index", [0, *(pytest.param(index, marks=pytest.mark.slow) for index in range(1, 5))])
def test_commands_run_it_only_when_told(folder, tmp_path, capsys, monkeypatch, index):
    command = commands(folder)[index]
    out = [] if command[0] == "generate" else ["--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    assert main([*command, *out]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("calmctl: error: cannot load") and "give --trust-remote-code to run it" in line
    assert sys.stdin.read() == "y\n" * 20
    assert main([*command, *out, "--trust-remote-code"]) == 0, capsys.readouterr().err
    if command[0] in ("compose", "baseline"):
        again = ["generate", "solve: 1 =", "--model", str(tmp_path / "out"), "-n", "2", "--json"]
        capsys.readouterr()
        assert main(again) == 2 and "--trust-remote-code" in capsys.readouterr().err
        assert main([*again, "--trust-remote-code"]) == 0


def test_a_composed_model_loads_again_only_with_trust(folder, tmp_path):
    own, plain = str(folder / "own"), str(folder / "plain")
    for bases in ((own, plain), (plain, own)):
        with pytest.raises(UserError, match="trust-remote-code"):
            compose(*bases, every=1)
        model = compose(*bases, every=1, trust_remote_code=True)
        for merge in (False, True):
            model.save_pretrained(tmp_path / "composed", merge_bases=merge)
            with pytest.raises(UserError, match="trust-remote-code"):
                ComposedModelForCausalLM.from_pretrained(tmp_path / "composed")
            loaded = ComposedModelForCausalLM.from_pretrained(tmp_path / "composed", trust_remote_code=True)
            assert torch.equal(logits(loaded, IDS), logits(model, IDS))
    adapted = adapt(own, "series", size=2, trust_remote_code=True)
    adapted.save_pretrained(tmp_path / "adapted")
    loaded = type(adapted).from_pretrained(tmp_path / "adapted", trust_remote_code=True)
    assert torch.equal(logits(loaded, IDS), logits(adapted, IDS))
