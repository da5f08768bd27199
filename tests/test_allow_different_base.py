"""`--allow-different-base`: what `from_pretrained` offers, on every command that loads a composed model."""

import json

import pytest
from transformers import AutoTokenizer

from calmctl.cli.main import main
from data_builders.kv.build import build
from tests.kv_settings import SMALL
from tests.models import composed, llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, and a composed model whose anchor was replaced after it was saved."""
    folder = tmp_path_factory.mktemp("other")
    build(SMALL, folder / "data")
    tokenizer = AutoTokenizer.from_pretrained(folder / "data" / "tokenizer")
    for name, seed in (("anchor", 1), ("aug", 2)):
        base = llama(seed=seed)
        base.resize_token_embeddings(len(tokenizer))
        base.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    composed(str(folder / "anchor"), str(folder / "aug")).save_pretrained(folder / "composed")
    tokenizer.save_pretrained(folder / "composed")
    other = llama(seed=7)
    other.resize_token_embeddings(len(tokenizer))
    other.save_pretrained(folder / "anchor")
    return folder


def commands(folder, out):
    model = ["--model", str(folder / "composed")]
    return [
        ["generate", "solve: 1 + 2 =", *model, "--max-new-tokens", "2", "--json"],
        ["eval", "kv", *model, "--data", str(folder / "data"), "--limit", "4", "--out", str(out), "--json"],
    ]


@pytest.mark.parametrize("index", [0, 1], ids=["generate", "eval"])
def test_a_different_base_is_refused_unless_allowed(folder, tmp_path, capsys, index):
    command = commands(folder, tmp_path / "out")[index]
    assert main(command) == 2
    assert "is not the one this model was trained with" in capsys.readouterr().err
    assert main([*command, "--allow-different-base"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_plain_model_has_no_bases_to_differ(folder, capsys):
    assert main(["generate", "solve: 1 =", "--model", str(folder / "aug"), "--allow-different-base"]) == 2
    assert "is a plain model" in capsys.readouterr().err
