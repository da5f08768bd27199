"""What is loaded is what is there: a folder either gives its model's logits, or one line that names the fault."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertForMaskedLM, LlamaForSequenceClassification, LlamaModel

from calmctl.cli.main import main
from calmctl.modeling.bases.sources import load_base
from data_builders.kv.tokenizers import build_word_tokenizer
from tests.models import VOCABULARY, llama, logits

IDS = torch.arange(2, 14).view(2, 6)
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    llama(seed=1, layers=2, width=16).save_pretrained(folder)
    build_word_tokenizer(["ab", "cd"], ["solve:"]).save_pretrained(folder)
    return folder


def renamed(change: Callable[[str], str]) -> Callable[[Path], None]:
    """Return what gives the weights in a folder other names."""

    def act(folder: Path) -> None:
        save_file({change(name): tensor for name, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)

    return act


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Return what changes the weights in a folder."""

    def act(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return act


def setting(name: str = "config.json", **changes: object) -> Callable[[Path], None]:
    """Return what changes settings in a file."""

    def act(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))

    return act


def content(name: str, data: bytes | None) -> Callable[[Path], None]:
    """Return what replaces a file; None removes it."""

    def act(folder: Path) -> None:
        (folder / name).unlink()
        if data is not None:
            (folder / name).write_bytes(data)

    return act


def saved(build: Callable[[], torch.nn.Module]) -> Callable[[Path], None]:
    """Return what puts another model into a folder."""

    def act(folder: Path) -> None:
        for file in (WEIGHTS, "config.json", "generation_config.json"):
            (folder / file).unlink(missing_ok=True)
        build().save_pretrained(folder)

    return act


def sharded(folder: Path) -> None:
    model = load_base(str(folder))
    (folder / WEIGHTS).unlink()
    model.save_pretrained(folder, max_shard_size="4KB")


def shards_less_one(folder: Path) -> None:
    sharded(folder)
    sorted(folder.glob("model-*.safetensors"))[0].unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


class _Command:
    def __reduce__(self):
        return os.system, ("touch was-run",)


def hostile(folder: Path) -> None:
    torch.save({"model.norm.weight": _Command()}, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def fifo(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def bert() -> torch.nn.Module:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForMaskedLM(AutoConfig.for_model("bert", vocab_size=VOCABULARY, **sizes))


def encoder() -> torch.nn.Module:
    return bert().bert


def headless() -> torch.nn.Module:
    return LlamaModel(llama(layers=2, width=16).config)


def classifier() -> torch.nn.Module:
    return LlamaForSequenceClassification(llama(layers=2, width=16).config)


def without(*names: str) -> Callable[[Path], None]:
    return weights(lambda tensors: [tensors.pop(name) for name in [*tensors] if name.startswith(names)])


def extra(name: str) -> Callable[[Path], None]:
    return weights(lambda tensors: tensors.update({name: torch.ones(4)}))


def nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"][3] = float("nan")


# What is done to the folder -> what the one line says; None = it loads, and gives the same logits as before.
FAULTS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "nothing": (lambda folder: None, None),
    "shards": (sharded, None),
    "pickled, but only tensors": (pickled, None),
    "old rotary buffers": (extra("model.layers.0.self_attn.rotary_emb.inv_freq"), None),
    "layers that predict ahead": (extra("mtp.layers.0.weight"), None),
    "unused generation settings": (content("generation_config.json", None), None),
    "DataParallel": (renamed(lambda name: f"module.{name}"), r"21 missing .* 21 not in the model .*take 'module.' off"),
    "peft": (renamed(lambda name: f"base_model.model.{name}"), "take 'base_model.model.' off"),
    "torch.compile": (renamed(lambda name: f"_orig_mod.{name}"), "take '_orig_mod.' off"),
    "one renamed": (renamed(lambda name: name.replace("1.mlp.up", "1.mlp.UP")), "1 missing .*1.mlp.up_proj"),
    "a layer less": (without("model.layers.1."), r"9 missing \(model.layers.1"),
    "no head": (without("lm_head"), r"1 missing \(lm_head.weight\)"),
    "no embedding": (without("model.embed_tokens"), r"1 missing \(model.embed_tokens"),
    "more layers than configured": (setting(num_hidden_layers=1), "9 not in the model .*num_hidden_layers=1"),
    "fewer layers than configured": (setting(num_hidden_layers=3, layer_types=None), "9 missing"),
    "a bias too many": (extra("model.layers.0.self_attn.q_proj.bias"), "1 not in the model .*q_proj.bias"),
    "other shapes": (setting(intermediate_size=24), r"6 of another shape .*\(32, 16\) instead of \(24, 16\)"),
    "other vocabulary": (setting(vocab_size=60), "2 of another shape .*embed_tokens"),
    "not a number": (weights(nan), r"1 weights are not finite numbers \(model.norm.weight\)"),
    "no weights": (content(WEIGHTS, None), "no file named model.safetensors"),
    "empty weights": (content(WEIGHTS, b""), "model.safetensors: empty"),
    "placeholder": (content(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "git lfs pull"),
    "cut off": (lambda folder: os.truncate(folder / WEIGHTS, 9000), "model.safetensors: .*damaged or cut off"),
    "other content": (content(WEIGHTS, b"<html>404</html>" * 9), "model.safetensors: .*damaged or cut off"),
    "shard missing": (shards_less_one, "model.safetensors.index.json: model-00001-of-.* is missing"),
    "pickled code": (hostile, "code in it is never run"),
    "no configuration": (content("config.json", None), "config.json"),
    "damaged configuration": (content("config.json", b'{"model_type": '), "config.json: damaged, it is not JSON"),
    "deep configuration": (content("config.json", b"[" * 99_999), "config.json: damaged, it is not JSON"),
    "configuration that is a list": (content("config.json", b"[1]"), "config.json: damaged, it holds no JSON object"),
    "configuration that is a pipe": (fifo, "config.json: not a file"),
    "damaged generation settings": (content("generation_config.json", b"{"), "generation_config.json: damaged"),
    "unknown type": (setting(model_type="llama7"), "llama7"),
    "no type": (setting(model_type=None), "model type `None`"),
    "unknown rope": (setting(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), "spiral"),
    "unknown activation": (setting(hidden_act="wiggle"), "wiggle"),
    "a setting of another type": (setting(hidden_size="wide"), "hidden_size|wide"),
    "heads that do not divide": (setting(num_attention_heads=5, head_dim=None), "attention heads"),
    "a package missing": (setting(quantization_config={"quant_method": "awq", "bits": 4}), "a package is missing"),
    "an unknown quantisation": (setting(quantization_config={"quant_method": "none-such"}), "none-such"),
    "half a model": (saved(headless), "lm_head.weight.*saved from a LlamaModel"),
    "classifier": (saved(classifier), "lm_head.weight.*score.weight.*saved from a LlamaForSequenceClassification"),
    "encoder": (saved(encoder), "missing .*saved from a BertModel"),
    "masked": (saved(bert), "cannot generate: it attends to later tokens"),
    "empty tokenizer": (content("tokenizer.json", b""), "tokenizer.json: empty"),
    "damaged tokenizer": (content("tokenizer.json", b'{"version": "1.0"'), "tokenizer.json: damaged"),
    "tokenizer of a later version": (setting("tokenizer.json", model={"type": "Quantum"}), "newer version"),
    "damaged tokenizer settings": (content("tokenizer_config.json", b"{'a': 1}"), "tokenizer_config.json: damaged"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_gives_its_model_or_one_line(fault, good, tmp_path, capsys, monkeypatch):
    change, message = FAULTS[fault]
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    change(folder)
    monkeypatch.chdir(tmp_path)
    code = main(["generate", "solve: 1 =", "--model", "model", "-n", "2", "--json"])
    captured = capsys.readouterr()
    if message is None:
        assert code == 0, captured.err
        assert torch.equal(logits(load_base(str(folder)), IDS), logits(load_base(str(good)), IDS))
    else:
        assert code == 2 and captured.out == ""
        last = captured.err.strip().splitlines()[-1]
        assert last.startswith("calmctl: error: ") and re.search(message, last) and "model" in last, last
        assert "Traceback" not in captured.err and "LOAD REPORT" not in captured.err
    assert not (tmp_path / "was-run").exists()
