"""Composed models and the hub: cards, pinned revisions, and what an upload would hold. The hub is a folder here."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from tests.models import composed, llama, opened
from tests.own_tokenizers import base
from tests.tokenizer_families import gpt2_style, llama3_style, lone_digits

COMMITS = {"anchor": "a" * 40, "aug": "b" * 40, "composed": "c" * 40}
IDS = torch.arange(2, 14).view(2, 6)


def publish(cache: Path, name: str, source: Path, commit: str = "") -> str:
    """Put a folder into a hub cache as the newest commit of `org/NAME`; return the id."""
    repository, commit = cache / f"models--org--{name}", commit or COMMITS[name]
    shutil.copytree(source, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    return f"org/{name}"


@pytest.fixture
def hub(tmp_path):
    """A hub cache with an anchor and an aug in it."""
    for name, model in (("anchor", llama(seed=1)), ("aug", llama(seed=2, width=16, heads=2, kv_heads=1))):
        model.save_pretrained(tmp_path / name)
        publish(tmp_path / "cache", name, tmp_path / name)
        shutil.rmtree(tmp_path / name)
    return tmp_path / "cache"


@pytest.fixture
def model(hub):
    return composed("org/anchor", "org/aug", cache_dir=hub)


@pytest.fixture
def uploads(monkeypatch, tmp_path):
    """Stand in for the network alone: where an upload would go, a copy of what it would hold is kept."""
    remote = tmp_path / "remote"

    def upload_folder(self, *, repo_id, folder_path, **_):
        shutil.copytree(folder_path, remote / repo_id, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".cache"))
        return f"https://huggingface.co/{repo_id}"

    def download(self, repo_id, name, *, local_dir, **_):
        return shutil.copy(remote / repo_id / name, local_dir)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "file_exists", lambda self, repo_id, name, **_: (remote / repo_id / name).is_file())
    monkeypatch.setattr(HfApi, "hf_hub_download", download)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return remote


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def metadata(card: Path) -> dict:
    return yaml.safe_load(card.read_text().split("---\n")[1])


def test_a_base_is_loaded_at_the_commit_it_was_composed_with(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "composed")
    bases = json.loads((tmp_path / "composed" / "config.json").read_text())["bases"]
    assert [(base["source"], base["revision"]) for base in bases] == [
        ("org/anchor", COMMITS["anchor"]), ("org/aug", COMMITS["aug"]),
    ]  # fmt: skip
    llama(seed=7).save_pretrained(tmp_path / "newer")
    publish(hub, "anchor", tmp_path / "newer", commit="d" * 40)
    loaded = ComposedModelForCausalLM.from_pretrained(tmp_path / "composed", cache_dir=hub)
    assert torch.equal(logits(loaded), logits(model))
    with pytest.raises(UserError, match="the anchor at 'org/anchor' is not the one .*weights_sha256"):
        ComposedModelForCausalLM.from_pretrained(tmp_path / "composed", cache_dir=hub, anchor="org/anchor")


def test_an_upload_loads_from_the_hub_and_names_no_local_folder(model, hub, uploads, tmp_path):
    assert model.push_to_hub("org/composed", tags=["arithmetic"]) == "https://huggingface.co/org/composed"
    pushed = uploads / "org" / "composed"
    assert {path.name for path in pushed.iterdir()} == {
        "README.md", "config.json", "generation_config.json", "model.safetensors", "modeling_calm.py",
    }  # fmt: skip
    assert not [path for path in pushed.iterdir() if str(tmp_path).encode() in path.read_bytes()]
    assert metadata(pushed / "README.md") == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["calm", "composition", "arithmetic"],
        "base_model": ["org/anchor", "org/aug"],
        "base_model_relation": "adapter",
    }
    publish(hub, "composed", pushed)
    loaded = AutoModelForCausalLM.from_pretrained("org/composed", cache_dir=hub)
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("merge", [False, True])
def test_an_upload_has_the_tokenizers_that_an_aug_with_one_of_its_own_needs(merge, uploads, tmp_path):
    hub, makers = tmp_path / "cache", {"anchor": gpt2_style, "aug": llama3_style}
    for seed, (name, make) in enumerate(makers.items()):
        base("llama", make(), seed).save_pretrained(tmp_path / name)
        make().save_pretrained(tmp_path / name)
        publish(hub, name, tmp_path / name)
    model = opened(compose("org/anchor", "org/aug", every=1, cache_dir=hub))
    model.push_to_hub("org/composed", merge_bases=merge)
    pushed = uploads / "org" / "composed"
    assert {"anchor_tokenizer.json", "aug_0_tokenizer.json"} < {path.name for path in pushed.iterdir()}
    publish(hub, "composed", pushed)
    for given in ({}, {"augs": ["org/aug"]}, {"augs": [model.augs[0]]}, {"augs": str(tmp_path / "aug")}):
        loaded = ComposedModelForCausalLM.from_pretrained("org/composed", cache_dir=hub, **given)
        assert torch.equal(logits(loaded), logits(model))
    lone_digits().save_pretrained(tmp_path / "aug")
    with pytest.raises(UserError, match="the aug's tokenizer .* is not the one that this model was trained with"):
        ComposedModelForCausalLM.from_pretrained("org/composed", cache_dir=hub, augs=str(tmp_path / "aug"))


def test_a_card_edited_on_the_hub_stays(model, uploads):
    model.push_to_hub("org/composed")
    card = uploads / "org" / "composed" / "README.md"
    card.write_text(card.read_text() + "\nTrained by us.\n")
    model.push_to_hub("org/composed")
    assert card.read_text().endswith("Trained by us.\n")


def test_local_bases_are_pushed_only_with_the_model(uploads, hub, tmp_path):
    llama(seed=1).save_pretrained(tmp_path / "anchor")
    model = composed(str(tmp_path / "anchor"), "org/aug", cache_dir=hub)
    with pytest.raises(UserError, match=r"the anchor is the folder .*/anchor'.* push it first .* merge_bases=True"):
        model.push_to_hub("org/composed")
    with pytest.raises(UserError, match="the anchor is in memory only"):
        composed().push_to_hub("org/composed")
    assert not uploads.exists()
    model.push_to_hub("org/composed", merge_bases=True)
    pushed = uploads / "org" / "composed"
    assert not [path for path in pushed.rglob("*.*") if str(tmp_path).encode() in path.read_bytes()]
    assert metadata(pushed / "README.md")["base_model"] == ["org/aug"]
    publish(hub, "composed", pushed)
    shutil.rmtree(hub / "models--org--aug")
    whole = AutoModelForCausalLM.from_pretrained("org/composed", cache_dir=hub)
    assert torch.equal(logits(whole), logits(model))


def test_merged_on_the_hub_saved_again_names_the_true_bases(model, hub, tmp_path):
    model.save_pretrained(tmp_path / "whole", merge_bases=True)
    publish(hub, "composed", tmp_path / "whole")
    AutoModelForCausalLM.from_pretrained("org/composed", cache_dir=hub).save_pretrained(tmp_path / "again")
    again = ComposedModelForCausalLM.from_pretrained(tmp_path / "again", cache_dir=hub)
    assert [base["source"] for base in again.config.bases] == ["org/anchor", "org/aug"]
    assert torch.equal(logits(again), logits(model))


# Cards.


def test_a_card_says_what_the_model_is_made_of(model, hub, tmp_path):
    model.config.training = {"data": "kv.jsonl", "steps": 30}
    model.save_pretrained(tmp_path / "fruit")
    card = (tmp_path / "fruit" / "README.md").read_text()
    anchor = model.config.bases[0]["fingerprint"]
    trainable = sum(parameter.numel() for parameter in model.composition_parameters().values())
    for fact in (
        "# fruit\n",
        "[org/anchor](https://huggingface.co/org/anchor) | aaaaaaaaaaaa | LlamaForCausalLM | float32 | 31,072",
        f"`{anchor['weights_sha256'][:12]}`", "| aug | 0 → 0, 1 → 1, 2 → 2 |", "num_heads = 4",
        f"{trainable:,}, {trainable / 31072:.1%} of the anchor's", "import calmctl", "trust_remote_code=True",
        "| data | kv.jsonl |\n| steps | 30 |", "arXiv:2401.02412",
    ):  # fmt: skip
        assert fact in card, fact
    assert "license" not in card.lower()
    again = ComposedModelForCausalLM.from_pretrained(tmp_path / "fruit", cache_dir=hub)
    assert again.config.training == {"data": "kv.jsonl", "steps": 30}


def test_a_card_names_folders_without_their_place(tmp_path):
    llama(seed=1).save_pretrained(tmp_path / "private" / "mother")
    aug = llama(seed=2, width=16, heads=2, kv_heads=1)
    composed(str(tmp_path / "private" / "mother"), aug).save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`mother`" in card and "private" not in card and str(tmp_path) not in card
    assert "base_model" not in metadata(tmp_path / "out" / "README.md")


def test_a_card_is_rewritten_until_somebody_edits_it(tmp_path):
    model, card = composed(), tmp_path / "README.md"
    model.save_pretrained(tmp_path)
    first = card.read_text()
    model.config.training = {"steps": 5}
    model.save_pretrained(tmp_path)
    assert "| steps | 5 |" in card.read_text() and card.read_text() != first
    for edited in (card.read_text().replace("frozen", "icy"), "# My own\n"):
        card.write_text(edited)
        model.save_pretrained(tmp_path)
        assert card.read_text() == edited
