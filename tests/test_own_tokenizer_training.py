"""Training with augs that have tokenizers of their own: plans, runs, what is kept, and how far augs can read."""

import copy
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from calmctl.errors import CalmctlError, UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import compose
from calmctl.modeling.context import AugContext
from calmctl.training import aug_examples
from calmctl.training.aug_examples import segmented, with_aug_tokens
from calmctl.training.compositions import composition_job
from calmctl.training.configs import ComposeConfig
from calmctl.training.examples import Examples, load_examples
from calmctl.training.job import plan_job
from calmctl.training.packing import pack
from calmctl.training.safeguards import check_same_reading
from calmctl.training.settings import TrainSettings
from data_builders.values import read_json
from tests import tokenizer_families as families
from tests.own_tokenizers import PAIRS, base, segmenter
from tests.trained import run_composition

SETTINGS = TrainSettings(steps=4, batch_size=8, lr=0.01, warmup_steps=1, save_every=2, log_every=1, bucket_width=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of bases with tokenizers, and of rows of prompts and completions and of texts."""
    folder, rng = tmp_path_factory.mktemp("own"), random.Random(0)
    makers = {"llama": families.llama3_style, "gpt2": families.lone_digits, "bloom": families.llama2_style,
              "same": families.gpt2_style}  # fmt: skip
    for seed, (name, make) in enumerate({"anchor": families.gpt2_style, **makers}.items()):
        settings = {"n_positions": 30} if name == "gpt2" else {}
        kind = name if name in ("gpt2", "bloom") else "llama"
        base(kind, make(), seed, **settings).save_pretrained(folder / name)
        make().save_pretrained(folder / name)
    texts = [[families.random_text(rng, most) or "text" for most in (2, 4)] for _ in range(30)]
    for name, rows in (
        ("rows", [{"prompt": prompt, "completion": completion} for prompt, completion in texts]),
        ("texts", [{"text": "".join(each)} for each in texts]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def config(
    folder: Path, augs: Sequence[str] = ("llama",), data: str = "rows", train: TrainSettings = SETTINGS, **more: object
):
    paths = tuple(str(folder / aug) for aug in augs)
    return ComposeConfig(
        str(folder / "anchor"), paths, dataset=str(folder / f"{data}.jsonl"), every=1, seed=3, train=train, **more
    )


# How far augs can read.


def examples_of(folder: Path, name: str = "rows", **settings: object) -> Examples:
    return load_examples(folder / f"{name}.jsonl", PAIRS["gpt2-llama3"][0](), replace(SETTINGS, **settings))


@pytest.mark.parametrize("pair", [*PAIRS])
def test_an_aug_reads_until_its_own_context_is_full(pair):
    anchor, rng = PAIRS[pair][0](), random.Random(1)
    for _ in range(60):
        ids = anchor(families.random_text(rng))["input_ids"]
        length = rng.randrange(1, 30)
        context = AugContext(0, segmenter(pair), length)
        fitting = context.num_fitting(ids)
        read, _ = segmenter(pair).read(ids)
        assert context.longest(ids) == max(read.places, default=-1) + 1
        needed = [place for place, born in zip(read.places, read.born, strict=True) if born < fitting]
        assert max(needed, default=-1) < length
        assert (
            fitting == len(ids) or max(p for p, b in zip(read.places, read.born, strict=True) if b <= fitting) >= length
        )
        assert context.may_exceed([ids])[0] or fitting == len(ids)


def test_examples_beyond_an_augs_context_are_refused_dropped_or_cut(folder):
    tokenizer, context = PAIRS["gpt2-llama3"][0](), AugContext(0, segmenter("gpt2-llama3"), 16)
    path, whole = folder / "rows.jsonl", examples_of(folder)
    fitting = np.array([context.num_fitting(whole.example(row).tolist()) for row in range(len(whole))])
    is_long = fitting < whole.lengths
    assert 3 < is_long.sum() < len(whole) - 3
    with pytest.raises(UserError, match=f"{is_long.sum()} of 30 examples are longer than the context of an aug"):
        load_examples(path, tokenizer, SETTINGS, 512, [context])
    dropped = load_examples(path, tokenizer, replace(SETTINGS, on_long_example="drop"), 512, [context])
    assert np.array_equal(dropped.rows, whole.rows[~is_long]) and dropped.counts["dropped_long"] == is_long.sum()
    cut = load_examples(path, tokenizer, replace(SETTINGS, on_long_example="truncate"), 512, [context])
    for row, length in zip(cut.rows - 1, cut.lengths, strict=True):
        assert length == fitting[row] > whole.completion_starts[row]
    assert set(whole.rows[~is_long]) < set(cut.rows)
    texts = examples_of(folder, "texts")
    with pytest.raises(UserError, match=r"train.context: a text of that many tokens has \d+ in the tokenizer of aug 0"):
        pack(texts, 40, [context])
    assert len(pack(texts, 8, [context])) == len(pack(texts, 8))


# Plans.


@pytest.mark.parametrize("change, told", [
    ({"augs": ["gpt2"]}, "examples are longer than the context of an aug, in its own tokens"),
    ({"augs": ["bloom"], "data": "texts", "train": replace(SETTINGS, packing=True)},
     "train.packing: aug 0, a BloomForCausalLM with a tokenizer of its own, cannot be told"),
    ({"augs": ["gpt2"], "data": "texts", "train": replace(SETTINGS, packing=True, context=64)}, "train.context"),
    ({"augs": ["bloom"], "segmentation": "own"}, "use segmentation=chunks"),
    ({"markers": {"</s>": "<nothing>"}}, "markers: the tokenizer of the aug .* has no special token '<nothing>'"),
], ids=["context", "packing", "packed context", "segmentation", "markers"])  # fmt: skip
def test_a_plan_refuses_what_its_run_refuses(folder, change, told):
    with pytest.raises(UserError, match=told) as caught:
        plan_job(composition_job(config(folder, **change)), folder / "planned")
    assert "\n" not in str(caught.value)


def test_a_plan_says_how_augs_read(folder):
    settings = replace(SETTINGS, on_long_example="truncate")
    augs = config(folder, ["llama", "same", "gpt2"], train=settings)
    first, second, third = plan_job(composition_job(augs), folder / "planned")["reading"]
    assert first["segmentation"] == "own" and 0.5 < first["aug_tokens_per_anchor_token"] < 2
    assert 0 < first["replaced"] < 1 and second is None and third["segmentation"] == "own"
    packed = config(folder, data="texts", segmentation="chunks", train=replace(SETTINGS, packing=True, context=64))
    (alone,) = plan_job(composition_job(packed), folder / "planned")["reading"]
    assert alone["segmentation"] == "chunks" and alone["replaced"] == 0


# What is kept.


def test_what_augs_read_is_kept_and_made_again_where_it_is_damaged(folder, tmp_path, monkeypatch):
    found, calls = examples_of(folder), []
    monkeypatch.setattr(aug_examples, "segmented", lambda *given: calls.append(given) or segmented(*given))
    readers = [segmenter("gpt2-llama3"), None, segmenter("gpt2-llama3", "chunks")]
    first = with_aug_tokens(found, readers, tmp_path).augs
    files = sorted(tmp_path.glob("aug_tokens-*.safetensors"))
    assert len(files) == 2 == len(calls) and first[1] is None
    for again in range(3):
        if again:
            data = files[0].read_bytes()
            files[0].write_bytes(data[: len(data) // 2] if again == 1 else b"")
        other = with_aug_tokens(found, readers, tmp_path).augs
        assert len(calls) == 2 + again
        for one, two in ((first[0], other[0]), (first[2], other[2])):
            assert np.array_equal(one.columns, two.columns) and np.array_equal(one.starts, two.starts)
    with_aug_tokens(found.subset(np.arange(9)), readers, tmp_path)
    assert len([*tmp_path.glob("aug_tokens-*")]) == 4 and not [*tmp_path.glob("*.tmp")]


def test_other_tokenizers_are_refused_when_a_run_goes_on(folder):
    model = compose(str(folder / "anchor"), [str(folder / "llama"), str(folder / "same")], every=1)
    stored = model.config.to_dict()
    check_same_reading(model, stored)
    other = copy.deepcopy(stored)
    other["segmentations"][0]["aug_sha256"] = "0" * 64
    for found in (other, {**stored, "segmentations": None}):
        with pytest.raises(CalmctlError, match="tokenizer of the anchor or of an aug is not the one this run was"):
            check_same_reading(model, found)
    shared = compose(str(folder / "anchor"), str(folder / "same"), every=1)
    check_same_reading(shared, {})  # of a version that knew of no others


@pytest.mark.slow
@pytest.mark.parametrize("change", [
    {"train": replace(SETTINGS, on_long_example="truncate"), "augs": ["gpt2"]},
    {"data": "texts", "train": replace(SETTINGS, packing=True, context=64)},
    {"aug_reads": "prompt"},
    {"random_aug": True, "merge_bases": True},
    {"segmentation": "chunks", "train": replace(SETTINGS, batch_tokens=120)},
    {"markers": {"</s>": "</s>"}, "train": replace(SETTINGS, precision="bf16")},
    {"augs": ["bloom", "same", "llama"], "train": replace(SETTINGS, accumulation=2)},
], ids=["cut", "packed", "prompts", "random", "chunks", "markers", "several"])  # fmt: skip
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(folder, tmp_path, change):
    settings = replace(change.get("train", SETTINGS), validation_share=0.2, eval_every=2)
    given = config(folder, **{**change, "train": settings})
    run = run_composition(given, tmp_path / "straight")
    shutil.copytree(run.path, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "model")
    shutil.rmtree(tmp_path / "resumed" / "checkpoints" / "checkpoint-4")
    facts = read_json(run.path / "run.json")
    (tmp_path / "resumed" / "run.json").write_text(json.dumps(facts | {"status": "interrupted"}))
    for file in (tmp_path / "resumed").glob("aug_tokens-*"):
        file.write_bytes(file.read_bytes()[:-9])
    resumed = run_composition(given, tmp_path / "resumed")
    one, two = (load_file(each.path / "model" / "model.safetensors") for each in (run, resumed))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    measured = [
        [{name: row[name] for name in row if "loss" in name} for row in each.read_jsonl()] for each in (run, resumed)
    ]
    assert measured[0] == measured[1] and measured[0][0] != measured[0][-2]
    for kept in run.path.glob("aug_tokens-*"):
        assert kept.read_bytes() == (resumed.path / kept.name).read_bytes()
    loaded = ComposedModelForCausalLM.from_pretrained(run.path / "model")
    assert loaded.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3).shape[1] > 3
