"""Sharing: bases that lie elsewhere, paths in checkpoints, exports, uploads, and commands of cards that work."""

import json
import re
import shlex
import shutil
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.modeling.bases.sources import load_base
from calmctl.modeling.stored.base_sources import source_of
from calmctl.modeling.stored.hub import prepared_upload
from tests.additions import folder, tokenizer
from tests.models import composed, example_ids, llama, logits
from tests.test_going_on import bases, composition
from tests.test_hub import publish, uploads
from tests.test_warm_start import adapters
from tests.trained import run_baseline, run_composition

__all__ = ["bases", "folder", "tokenizer", "uploads"]
PROMPT = "solve: 1 + 2 ="


@pytest.fixture(scope="module")
def runs(bases, tmp_path_factory) -> Path:
    """A folder with bases (`anchor`, `aug`) and runs (`runs/calm`, `runs/lora`)."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(bases, root, dirs_exist_ok=True)
    run_composition(composition(root, dataset=str(root / "trai?.jsonl")), root / "runs" / "calm")
    run_baseline(adapters(root), root / "runs" / "lora")
    return root


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(each) for each in arguments])
    return code, *capsys.readouterr()


def answers(model: Path | str, **bases: object) -> torch.Tensor:
    loaded = AutoModelForCausalLM.from_pretrained(str(model), **bases)
    return logits(loaded, example_ids() % loaded.config.vocab_size)


def texts_in(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_bases_that_lie_elsewhere_are_named_on_every_command(runs, tmp_path, capsys):
    shutil.copytree(runs / "runs" / "calm", tmp_path / "far" / "calm")
    for name in ("anchor", "aug"):
        shutil.copytree(runs / name, tmp_path / "models" / f"my {name}")
    where = ["--anchor", tmp_path / "models" / "my anchor", "--aug", tmp_path / "models" / "my aug"]
    far, data = tmp_path / "far" / "calm", ["--data", runs / "train.jsonl", "--limit", 2, "options.max_new_tokens=4"]
    commands = [
        ["generate", PROMPT, "--model", far, "-n", 2],
        ["eval", "rows", "--model", far, *data, "--out", tmp_path / "eval"],
        ["eval", "rows", "--model", far, *data, "--out", tmp_path / "plan", "--dry-run"],
        ["export", far, tmp_path / "exported"],
    ]
    for command in commands:
        code, _, said = call(capsys, *command)
        assert code == 2 and "the anchor is not at ../../../anchor; say where it is: --anchor MODEL" in said
        code, _, said = call(capsys, *command, *where[:2], "--aug", runs / "aug", "--aug", runs / "aug")
        assert code == 2 and "was composed with 1 augs, but 2 are given" in said
        if "--dry-run" not in command:
            code, _, said = call(capsys, *command, "--anchor", runs / "aug", "--aug", runs / "aug")
            assert code == 2 and "the anchor at" in said and "--allow-different-base" in said
        code, _, said = call(capsys, *command, *where)
        assert code == 0, said
    same = answers(runs / "runs" / "calm" / "model")
    assert torch.equal(answers(tmp_path / "exported"), same)  # and the bases are where they were named
    given = {"anchor": str(where[1]), "augs": [str(where[3])]}
    assert torch.equal(answers(far / "model", **given), same)


def test_bases_of_other_weights_make_another_evaluation(runs, tmp_path, capsys):
    command = [
        "eval",
        "rows",
        "--model",
        runs / "runs" / "calm",
        "--data",
        runs / "train.jsonl",
        "--limit",
        2,
        "options.max_new_tokens=4",
    ]
    command += ["--out", tmp_path / "eval", "--allow-different-base", "--anchor"]
    assert call(capsys, *command, runs / "aug")[0] == 0
    code, _, said = call(capsys, *command, runs / "anchor")
    assert code == 2 and "other inputs (changed: anchor)" in said


def test_a_plain_model_has_no_bases_to_name(runs, capsys):
    code, _, said = call(capsys, "generate", PROMPT, "--model", runs / "anchor", "--aug", runs / "aug")
    assert code == 2 and "is a plain model" in said


def test_no_absolute_path_is_in_a_checkpoint_whose_bases_are_near(runs, tmp_path, capsys):
    for name in ("calm", "lora"):
        assert str(runs.parent).encode() not in texts_in(runs / "runs" / name / "model")
    shutil.copytree(runs, tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "runs" / "calm"
    assert torch.equal(answers(moved / "model"), answers(runs / "runs" / "calm" / "model"))
    assert call(capsys, "export", moved, tmp_path / "out", "--merge-bases")[0] == 0
    assert str(tmp_path).encode() not in texts_in(tmp_path / "out")


def test_a_base_that_shares_no_folder_has_its_absolute_path_and_the_card_says_so(tmp_path):
    model = composed(llama(seed=1), llama(seed=2, width=16, heads=2, kv_heads=1))
    model.anchor.config._name_or_path = "/usr"
    assert source_of(model.anchor, tmp_path)["source"] == "/usr"
    model.save_pretrained(tmp_path / "far")
    assert "the absolute path that a base had" in (tmp_path / "far" / "README.md").read_text()
    model.anchor.config._name_or_path = str(tmp_path)
    assert source_of(model.anchor, tmp_path / "far") == {"relative_source": ".."}
    model.save_pretrained(tmp_path / "near")
    assert "absolute path" not in (tmp_path / "near" / "README.md").read_text()


def test_a_base_that_is_a_run_has_the_name_of_the_run(tmp_path):
    model = composed(llama(seed=1), llama(seed=2, width=16, heads=2, kv_heads=1))
    (tmp_path / "runs" / "mine" / "model").mkdir(parents=True)
    model.anchor.config._name_or_path = str(tmp_path / "runs" / "mine" / "model")
    model.save_pretrained(tmp_path / "composed")
    assert "| anchor | `mine` |" in (tmp_path / "composed" / "README.md").read_text()


def test_a_self_contained_export_needs_no_bases(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "project")
    expected = answers(tmp_path / "project" / "runs" / "calm" / "model")
    code, out, _ = call(
        capsys, "export", tmp_path / "project" / "runs" / "calm", tmp_path / "out", "--merge-bases", "--json"
    )
    facts = json.loads(out)
    assert code == 0 and {"anchor/model.safetensors", "aug_0/model.safetensors", "README.md"} < facts["files"].keys()
    assert facts["bytes"] == sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    shutil.rmtree(tmp_path / "project")
    assert torch.equal(answers(tmp_path / "out"), expected)
    assert call(capsys, "generate", PROMPT, "--model", tmp_path / "out", "-n", 2)[0] == 0


def test_merged_adapters_are_a_plain_model(runs, tmp_path, capsys):
    code, out, _ = call(capsys, "export", runs / "runs" / "lora", tmp_path / "out", "--merge")
    assert code == 0 and "model.safetensors" in out
    plain = load_base(str(tmp_path / "out"))
    assert type(plain) is LlamaForCausalLM and b"calm_adapted" not in texts_in(tmp_path / "out")
    assert str(runs.parent).encode() not in texts_in(tmp_path / "out")
    assert torch.allclose(answers(tmp_path / "out"), answers(runs / "runs" / "lora" / "model"), atol=1e-5)
    assert "a plain model" in (tmp_path / "out" / "README.md").read_text()
    assert call(capsys, "export", tmp_path / "out", tmp_path / "again")[0] == 0
    assert torch.equal(answers(tmp_path / "again"), answers(tmp_path / "out"))


@pytest.mark.parametrize("source, options, message", [
    ("runs/calm", ["--merge"], "a composition cannot become a plain model; --merge-bases"),
    ("runs/lora", ["--merge-bases"], "adapters in a frozen model; --merge adds them"),
    ("anchor", ["--merge"], "a plain model, which is whole as it is; leave --merge out"),
    ("nowhere/at/all", [], "nowhere/at/all: no such folder"),
])  # fmt: skip
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(runs, tmp_path, capsys, source, options, message):
    code, _, said = call(capsys, "export", runs / source, tmp_path / "to" / "out", *options)
    assert code == 2 and message in said and said.count("\n") == 1
    assert not [*tmp_path.rglob("*out*")]


def test_an_export_replaces_nothing_and_keeps_a_card_that_was_edited(runs, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    code, _, said = call(capsys, "export", runs / "runs" / "calm", tmp_path / "full")
    assert code == 2 and "holds files; choose a new or an empty folder" in said
    code, _, said = call(capsys, "export", runs / "runs" / "calm", tmp_path / "full" / "notes.txt")
    assert code == 2 and "is a file" in said
    (tmp_path / "project").mkdir()
    shutil.copytree(runs, tmp_path / "project", dirs_exist_ok=True)
    card = tmp_path / "project" / "runs" / "calm" / "model" / "README.md"
    card.write_text(card.read_text() + "\nTrained by us.\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a link").symlink_to("empty")
    code, said, _ = call(capsys, "export", tmp_path / "project" / "runs" / "calm", tmp_path / "a link")
    assert code == 0 and f"--model '{tmp_path}/a link'" in said and (tmp_path / "a link").is_symlink()
    assert (tmp_path / "empty" / "README.md").read_text() == card.read_text()


@pytest.mark.parametrize("kind", ["calm", "calm --merge-bases", "lora", "lora --merge"])
def test_the_commands_of_a_card_work(runs, tmp_path, capsys, monkeypatch, kind):
    name, *options = kind.split()
    folder = runs / "exports" / kind.replace(" ", "")
    assert call(capsys, "export", runs / "runs" / name, folder, *options)[0] == 0
    card = (folder / "README.md").read_text()
    blocks = re.findall(r"```(bash|python)\n(.*?)```", card, re.DOTALL)
    assert [language for language, _ in blocks] == (["python"] if "--merge" in options else ["bash", "python"])
    monkeypatch.chdir(folder)
    for language, text in blocks:
        if language == "bash":
            assert main(shlex.split(text)[1:]) == 0
        else:
            exec(text.replace("a prompt", PROMPT), {})


# Uploads.


def test_a_dry_run_shows_what_an_upload_would_hold_and_uses_no_network(runs, capsys, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    for name in ("create_repo", "file_exists", "upload_folder", "create_branch"):
        monkeypatch.setattr(HfApi, name, refuse)
    command = ["push", runs / "runs" / "calm", "me/calm", "--dry-run"]
    code, _, said = call(capsys, *command)
    assert code == 2 and "the anchor is the folder" in said and "--merge-bases" in said
    code, out, _ = call(capsys, *command, "--merge-bases")
    assert (
        code == 0 and "aug_0/model.safetensors" in out and "calmctl generate" in out and "nothing was uploaded" in out
    )
    plan = json.loads(call(capsys, *command, "--merge-bases", "--json")[1])
    assert plan["url"] is None and plan["bytes"] == sum(plan["files"].values()) and "tokenizer.json" in plan["files"]
    assert "--model me/calm" in plan["card"] and str(runs.parent) not in plan["card"]
    for name in ("no id", "a/b/c", "-x"):
        code, _, said = call(capsys, "push", runs / "runs" / "calm", "--dry-run", "--", name)
        assert code == 2 and "OWNER/NAME" in said, said


def test_a_push_uploads_what_the_dry_run_showed(runs, uploads, capsys):
    command = ["push", runs / "runs" / "lora", "me/lora", "--merge", "--json"]
    planned = json.loads(call(capsys, *command, "--dry-run")[1])
    assert not uploads.exists()
    done = json.loads(call(capsys, *command)[1])
    assert done["url"] == "https://huggingface.co/me/lora" and done["files"] == planned["files"]
    pushed = uploads / "me" / "lora"
    assert {file.relative_to(pushed).as_posix(): file.stat().st_size for file in pushed.rglob("*")} == done["files"]


def test_a_hub_that_refuses_is_one_line(runs, uploads, capsys, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("401 Client Error.\nlog in first")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    code, _, said = call(capsys, "push", runs / "runs" / "lora", "me/lora", "--merge")
    assert code == 1 and "cannot upload to me/lora: 401 Client Error. log in first" in said


def test_bases_that_are_on_the_hub_are_named_by_their_ids(runs, tmp_path, monkeypatch):
    asked = []

    def refuse(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    hub = tmp_path / "cache"
    ids = {name: publish(hub, name, runs / name) for name in ("anchor", "aug")}
    how = {"anchor": ids["anchor"], "augs": [ids["aug"]], "cache_dir": hub, "is_offline": True}
    with prepared_upload(str(runs / "runs" / "calm"), "me/calm", merge_bases=False, merge=False, **how) as upload:
        config = json.loads((upload / "config.json").read_text())
        assert [base["source"] for base in config["bases"]] == [*ids.values()]
        assert str(runs.parent).encode() not in texts_in(upload)
        assert not asked
        monkeypatch.undo()
        assert torch.equal(answers(upload, cache_dir=hub), answers(runs / "runs" / "calm" / "model"))
    with pytest.raises(UserError, match="no id of the hub"):
        with prepared_upload(str(runs / "runs" / "calm"), "x y", merge_bases=False, merge=False, **how):
            pass
