"""GGUF files are bases like folders: same logits and tokens, recognised again by their content, refused in one line."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from calmctl import ComposedModelForCausalLM, compose
from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.modeling.bases import gguf_files
from calmctl.modeling.bases.locating import source_sha256
from calmctl.modeling.bases.sources import base_config, find_tokenizer, load_base, load_tokenizer
from tests.models import logits

pytest.importorskip("gguf", reason="the extra `gguf` is not installed: pip install 'calmctl[gguf]'")

from tests.gguf_writing import STORED, byte_tokenizer, small_llama, write_folder, write_gguf

TEXT = "<|start|>then the abbot, élan 🙂 12\n"
IDS = torch.arange(2, 26).view(2, 12)
TOKENIZER = byte_tokenizer()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Return a folder with an anchor of Q8_0 and an aug of F16 as files, and the same as folders."""
    folder = tmp_path_factory.mktemp("gguf")
    for name, seed, layers, stored in (("anchor", 1, 3, "Q8_0"), ("aug", 2, 2, "F16")):
        model = small_llama(seed, TOKENIZER, layers)
        write_gguf(folder / f"{name}.gguf", model, TOKENIZER, stored)
        write_folder(folder / name, model, TOKENIZER, stored)
    rows = [{"prompt": "the ", "completion": "abbot"}] * 4
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("stored", STORED)
def test_a_file_gives_what_its_folder_gives(stored, tmp_path):
    model = small_llama(5, TOKENIZER, layers=1, tied=stored == "F16")
    file = write_gguf(tmp_path / "model.gguf", model, TOKENIZER, stored)
    folder = write_folder(tmp_path / "folder", model, TOKENIZER, stored)
    for dtype in ("auto", torch.bfloat16):
        found = load_base(file, dtype=dtype)
        expected = load_base(folder, dtype=torch.float32 if dtype == "auto" else dtype)
        assert torch.equal(logits(found, IDS), logits(expected, IDS))
        assert found.dtype == expected.dtype and found.generation_config.eos_token_id == 1
        assert not getattr(found.config, "quantization_config", None) and not hasattr(found, "hf_quantizer")
        assert found.config._name_or_path == str(file) == base_config(str(file))._name_or_path
    ours, theirs = load_tokenizer(str(file)), load_tokenizer(str(folder))
    assert ours(TEXT)["input_ids"] == theirs(TEXT)["input_ids"] and ours.decode(ours(TEXT)["input_ids"]) == TEXT
    assert (ours.name_or_path, ours.bos_token_id, ours.eos_token_id) == (str(file), 0, 1)
    ours.add_tokens(["altered"])
    assert len(load_tokenizer(str(file))) == len(theirs)


def test_checkpoints_know_their_files_again(files, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("anchor.gguf", "aug.gguf"):
        shutil.copy(files / name, home / name)
    os.chdir(home)
    model = compose("anchor.gguf", Path("aug.gguf"), every=1, zero_init=False)
    same = compose(str(files / "anchor"), str(files / "aug"), every=1, dtype=torch.float32)
    assert model.fingerprints() == same.fingerprints()
    model.save_pretrained(home / "calm")
    config = json.loads((home / "calm" / "config.json").read_text())
    assert [base["relative_source"] for base in config["bases"]] == ["../anchor.gguf", "../aug.gguf"]
    assert "quantization_config" not in (home / "calm" / "config.json").read_text()
    os.chdir(tmp_path)
    home.rename(tmp_path / "moved")
    again = ComposedModelForCausalLM.from_pretrained(tmp_path / "moved" / "calm")
    assert torch.equal(logits(again, IDS), logits(model, IDS))
    shutil.copy(tmp_path / "moved" / "aug.gguf", tmp_path / "moved" / "anchor.gguf")
    with pytest.raises(UserError, match=r"the anchor at '.*anchor.gguf' is not the one"):
        ComposedModelForCausalLM.from_pretrained(tmp_path / "moved" / "calm")
    (tmp_path / "moved" / "anchor.gguf").unlink()
    with pytest.raises(UserError, match=r"the anchor is not at .*anchor.gguf; say where it is: --anchor MODEL"):
        ComposedModelForCausalLM.from_pretrained(tmp_path / "moved" / "calm")
    given = ComposedModelForCausalLM.from_pretrained(tmp_path / "moved" / "calm", anchor=str(files / "anchor.gguf"))
    assert torch.equal(logits(given, IDS), logits(model, IDS))


def test_merged_bases_need_no_file(files, tmp_path):
    shutil.copy(files / "anchor.gguf", tmp_path / "anchor.gguf")
    model = compose(tmp_path / "anchor.gguf", files / "aug.gguf", every=1, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "calm", merge_bases=True)
    (tmp_path / "anchor.gguf").unlink()
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "calm")
    assert torch.equal(logits(found, IDS), logits(model, IDS)) and found.anchor.dtype == torch.bfloat16
    assert "gguf" not in (tmp_path / "calm" / "anchor" / "config.json").read_text()


def test_a_file_stands_for_itself(files, tmp_path):
    """What lies beside it says nothing of it; its name may be a link, or a hash."""
    for name in ("blob", "model.gguf"):
        shutil.copy(files / "aug.gguf", tmp_path / name)
    (tmp_path / "link.gguf").symlink_to("blob")
    byte_tokenizer((("o", "t"),)).save_pretrained(tmp_path)
    small_llama(9, TOKENIZER).save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    expected = logits(load_base(files / "aug", dtype=torch.float32), IDS)
    for name in ("blob", "model.gguf", "link.gguf"):
        source = str(tmp_path / name)
        found = load_base(source)
        assert torch.equal(logits(found, IDS), expected) and found.config._name_or_path == source
        assert load_tokenizer(source)("the abbot")["input_ids"] == TOKENIZER("the abbot")["input_ids"]
        assert (
            source_sha256(source) == source_sha256(str(files / "aug.gguf")) != source_sha256(str(files / "anchor.gguf"))
        )


def test_tokenizers_are_compared_and_stored(files, tmp_path):
    other = byte_tokenizer((("o", "t"), ("a", "b"), ("e", "n"), ("t", "h")))
    folder = write_folder(tmp_path / "aug", small_llama(3, other), other)
    model = compose(files / "anchor.gguf", folder, every=1)
    assert model.config.segmentations[0] is not None
    model.save_pretrained(tmp_path / "calm")
    again = ComposedModelForCausalLM.from_pretrained(tmp_path / "calm")
    assert torch.equal(logits(again, IDS), logits(model, IDS))
    bare = write_gguf(tmp_path / "bare.gguf", small_llama(3, TOKENIZER), None)
    assert find_tokenizer(str(bare)) is None
    assert compose(files / "anchor.gguf", bare, every=1).config.segmentations == [None]


def test_models_that_transformers_unpacked_are_bases(files, tmp_path):
    how = {"gguf_file": "aug.gguf", "dtype": torch.float32}
    loaded = AutoModelForCausalLM.from_pretrained(files, quantization_config=GgufConfig(dequantize=True), **how)
    found = compose(files / "anchor.gguf", loaded, every=1, tokenizers=[TOKENIZER, TOKENIZER])
    found.save_pretrained(tmp_path / "calm")
    again = ComposedModelForCausalLM.from_pretrained(tmp_path / "calm", augs=[str(files / "aug.gguf")])
    assert torch.equal(logits(again, IDS), logits(found, IDS))
    loaded.config.quantization_config = GgufConfig()
    with pytest.raises(UserError, match="give the file's path instead"):
        compose(files / "anchor.gguf", loaded, every=1)


# What peft itself asks of a model has another name by now.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_adapters_of_a_file_are_merged_into_it(files, tmp_path):
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(load_base(files / "aug.gguf"), config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    found = load_base(tmp_path / "adapter")
    torch.testing.assert_close(logits(found, IDS), logits(adapted, IDS), atol=1e-5, rtol=1e-4)
    assert load_tokenizer(str(tmp_path / "adapter"))(TEXT) == TOKENIZER(TEXT)
    assert source_sha256(str(tmp_path / "adapter")).endswith(f"+{source_sha256(str(files / 'aug.gguf'))}")


COMMANDS = {
    "show": ("show --anchor anchor.gguf --aug aug.gguf --text the --json", "the"),
    "doctor": ("doctor --anchor anchor.gguf --aug aug.gguf --json", '"ok": true'),
    "generate": ("generate the --model anchor.gguf -n 2 --json", "completion"),
    "compose": ("compose --anchor anchor.gguf --aug aug.gguf --data rows.jsonl every=1 --out OUT --dry-run", "bridge"),
    "baseline": ("baseline lora --anchor anchor.gguf --data rows.jsonl --parameters 2000 --out OUT --dry-run", "lora"),
    "train": (
        "train aug --preset further --base aug.gguf --data rows.jsonl train.packing=false --out OUT --dry-run",
        "aug.gguf",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_take_files(command, files, tmp_path, capsys):
    words, said = COMMANDS[command]
    os.chdir(files)
    assert main(words.replace("OUT", str(tmp_path / "run")).split()) == 0
    captured = capsys.readouterr()
    assert said in captured.out and "it/s]" not in captured.err, captured


@pytest.mark.slow
def test_a_composition_of_files_is_trained_and_used(files, tmp_path, capsys):
    os.chdir(files)
    run = str(tmp_path / "run")
    words = f"compose --anchor anchor.gguf --aug aug.gguf --data rows.jsonl every=1 train.steps=2 --out {run}"
    assert main(words.split()) == 0
    assert main(["generate", "the", "--model", run, "-n", "2", "--json"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(Path(run) / "model")
    assert tokenizer(TEXT)["input_ids"] == TOKENIZER(TEXT)["input_ids"]
    assert str(files) not in (Path(run) / "model" / "tokenizer_config.json").read_text()
    for words in ("train aug --preset further --base aug.gguf", "baseline lora --anchor anchor.gguf --parameters 2000"):
        out = str(tmp_path / words.split()[0])
        assert main([*words.split(), "--data", "rows.jsonl", "train.steps=2", "train.packing=false", "--out", out]) == 0
        assert main(["generate", "the", "--model", out, "-n", "2", "--json"]) == 0


def cut(size: int) -> Callable[[Path], object]:
    return lambda file: os.truncate(file, size)


def written(**more: object) -> Callable[[Path], object]:
    return lambda file: write_gguf(file, small_llama(1, TOKENIZER), TOKENIZER, **more)


def not_a_number(file: Path) -> None:
    model = small_llama(1, TOKENIZER)
    model.model.norm.weight.data[3] = float("nan")
    write_gguf(file, model, TOKENIZER)


# What is done to the file -> what the one line says.
FAULTS = {
    "missing": (Path.unlink, "model.gguf: no such file"),
    "empty": (cut(0), "empty; fetch it again"),
    "header cut off": (cut(2000), "damaged or cut off"),
    "weights cut off": (lambda file: os.truncate(file, file.stat().st_size - 999), "damaged or cut off"),
    "start only": (cut(4), "damaged or cut off"),
    "other content": (lambda file: file.write_bytes(b"<html>404</html>" * 9), "no GGUF file"),
    "placeholder": (lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "unknown architecture": (written(arch="llama7"), "llama7 is not supported"),
    "one part": (written(split__count=3), "one of the 3 parts of a model; join them"),
    "not a number": (not_a_number, "1 weights are not finite numbers"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_other_files_are_refused_in_one_line(fault, tmp_path, capsys, files):
    change, message = FAULTS[fault]
    shutil.copy(files / "aug.gguf", tmp_path / "model.gguf")
    change(tmp_path / "model.gguf")
    assert main(["generate", "the", "--model", str(tmp_path / "model.gguf"), "-n", "2"]) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("calmctl: error: ") and re.search(message, last) and "model.gguf" in last, last
    assert "Traceback" not in captured.err and captured.out == ""


def test_what_cannot_be_done_with_a_file_is_said(files, tmp_path, monkeypatch):
    (tmp_path / "packed").mkdir()
    shutil.copy(files / "aug.gguf", tmp_path / "packed" / "aug.gguf")
    for load in (base_config, load_base):
        with pytest.raises(UserError, match=r"packed: holds GGUF files; give the one that is meant, such as aug.gguf"):
            load(str(tmp_path / "packed"))
        shutil.copy(files / "aug" / "config.json", tmp_path / "packed" / "config.json")
    with pytest.raises(UserError, match=r"owner/name/a.gguf: no such file; `hf download"):
        load_base("owner/name/a.gguf")
    with pytest.raises(UserError, match="unpacked when it is loaded"):
        load_base(files / "aug.gguf", quantization_config=object())
    monkeypatch.setattr(gguf_files, "is_gguf_available", lambda oldest: False)
    assert f'"gguf>={gguf_files.OLDEST}"' in (Path(__file__).parents[1] / "pyproject.toml").read_text()
    for load in (load_base, load_tokenizer, base_config):
        with pytest.raises(UserError, match=r"needs the package gguf, .*: pip install 'calmctl\[gguf\]'"):
            load(str(files / "aug.gguf"))
