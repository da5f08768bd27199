"""`calmctl doctor --anchor A --aug B`: whether models go together, and how each aug reads."""

import json
from pathlib import Path

import pytest

from calmctl.cli.main import main
from tests import tokenizer_families as families
from tests.own_tokenizers import base

MODELS = {
    "anchor": ("llama", families.gpt2_style),
    "equal": ("llama", families.gpt2_style),
    "other": ("llama", families.qwen_style),
    "alibi": ("bloom", families.llama3_style),
    "lower": ("llama", families.lower_casing),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for name, (kind, make) in MODELS.items():
        base(kind, make(), 0).save_pretrained(folder / name)
        make().save_pretrained(folder / name)
    (folder / "rows.jsonl").write_text('{"prompt": "two  words ", "completion": "naïve"}\n')
    return folder


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[tuple[str, str, str]]]:
    code = main(["doctor", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] == (code == 0)
    return code, [tuple(check.values()) for check in found["checks"]]


def test_each_aug_is_told_how_it_reads_or_why_not(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    pairs = [part for name in MODELS if name != "anchor" for part in ("--aug", name)]
    code, checks = checked(capsys, "--anchor", "anchor", *pairs, "--data", "rows.jsonl")
    assert code == 1
    expected = [
        ("aug 0 tokenizer", "ok", "the anchor's"),
        ("aug 1 tokenizer", "ok", "its own: "),
        ("aug 1 tokenizer", "warning", "NFC"),
        ("aug 1 reads", "ok", "its own tokenization of the text so far"),
        ("aug 1 tokens", "ok", "English"),
        ("aug 1 tokens", "ok", "rows.jsonl"),
        ("aug 2 reads", "ok", "every anchor token tokenized alone, for it finds positions by itself"),
        ("aug 2 markers", "ok", "1 token of its own before a text"),
        ("aug 3", "refused", "does not keep texts"),
    ]
    for name, status, words in expected:
        assert any(check[:2] == (name, status) and words in check[2] for check in checks), (name, words, checks)
    assert not any(check[0] == "aug 0 reads" for check in checks)
    assert checked(capsys, "--anchor", "anchor", "--aug", "other", "segmentation=chunks")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--anchor anchor", "--aug MODEL"),
        ("--anchor anchor --aug other --data nowhere.jsonl", "nowhere.jsonl"),
        ("segmentation=chunks", "--anchor MODEL"),
        ("--anchor anchor --aug other --marker x", "--marker x"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(arguments, words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["doctor", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1
