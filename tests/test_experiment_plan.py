"""The plans of experiments on real text: what stages come to, without a download, a tokenizer or any weights."""

import json
import re
import shutil
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.experiments.planning.totals import DEVICES, UTILISATION
from calmctl.modeling.bases.public_shapes import public_shapes
from tests import tokenizer_families as families
from tests.ntl_corpora import write_flores, write_ntrex, write_seed
from tests.own_tokenizers import base
from tests.task_data import write_data

# The languages of the data here.
CORPORA = ["data.aug.languages=[lij_Latn,fur_Latn]", "data.anchor.languages=[fra_Latn]",
           "data.flores_languages=[eng_Latn,lij_Latn,fur_Latn,fra_Latn]",
           "flores.options.languages=[lij_Latn]"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = write_data(tmp_path_factory.mktemp("data"))
    shutil.rmtree(folder / "flores")
    write_seed(folder / "nllb_seed")
    write_ntrex(folder / "ntrex")
    write_flores(folder / "flores200")
    return folder


@pytest.fixture
def planned(data, tmp_path, capsys):
    """Plan a preset; returns exit code, what is printed, and errors."""

    def run(section: str, preset: str, *more: str) -> tuple[int, str, str]:
        given = {"ntl": ["--data", str(data), *CORPORA],
                 "code": ["--tests", str(data), "--source", "stdlib", "--allow-code-execution"]}  # fmt: skip
        command = ["reproduce", section, "--preset", preset, "--out", str(tmp_path / "out"), "--dry-run"]
        code = main([*command, *given[section], *more])
        assert not (tmp_path / "out").exists()
        return code, *capsys.readouterr()

    return run


def test_pretrained_models_are_planned_by_their_public_shapes(planned):
    code, out, _ = planned("ntl", "smollm2", "--json")
    plan = json.loads(out)
    trainings = {row["stage"]: row for row in plan["trainings"]}
    anchor, aug = (public_shapes()[f"HuggingFaceTB/SmolLM2-{size}"]["parameters"] for size in ("1.7B", "360M"))
    assert code == 0
    assert {row["source"]: (row["parameters"], row["shape"]) for row in plan["models"]} == {
        "HuggingFaceTB/SmolLM2-1.7B": (anchor, "public, not downloaded"),
        "HuggingFaceTB/SmolLM2-360M": (aug, "public, not downloaded"),
    }
    assert set(trainings) == {
        "aug", "calm", "random_aug", "vanilla_aug", "aug_as_encoder", "lora", "m_B_finetuned",
    }  # fmt: skip
    # Every 4th of 32 layers; a bridge is a projection, four square matrices and two biases.
    bridges = 8 * (960 * 2048 + 4 * 2048**2 + 2 * 2048)
    calm = trainings["calm"]
    assert (calm["trainable_parameters"], calm["parameters"]) == (bridges, anchor + aug + bridges)
    # bfloat16 as it is downloaded, the aug in float32 as it was trained; AdamW has two moments.
    assert calm["memory_bytes"] == 2 * anchor + 4 * aug + 16 * bridges
    assert trainings["vanilla_aug"]["memory_bytes"] == 2 * (anchor + aug) + 16 * bridges
    assert trainings["aug"]["memory_bytes"] == 16 * aug
    assert calm["tokens"] == 600 * 32768 and trainings["aug"]["tokens"] == 2000 * 128 * 1024
    assert trainings["lora"]["trainable_parameters"] == pytest.approx(bridges, rel=0.001)
    # Training a model takes six FLOPs a parameter and token, and its attention; frozen layers take less.
    assert 6 * aug < trainings["aug"]["flops"] / trainings["aug"]["tokens"] < 7.5 * aug
    assert calm["flops"] / calm["tokens"] < 6 * (anchor + aug)
    seconds = calm["flops"] / (UTILISATION * DEVICES["A100"][0])
    assert calm["hours"]["A100"] == pytest.approx(seconds / 3600)
    prompts = {row["task"]: (row["models"], row["prompts"]) for row in plan["evaluations"]}
    assert prompts == {"flores": (8, 1012), "mgsm": (8, 250), "gsm8k": (8, 9)}
    rows = [*plan["trainings"], *plan["evaluations"]]
    assert plan["totals"]["hours"]["H100"] == pytest.approx(sum(row["hours"]["H100"] for row in rows))


def test_models_that_are_used_as_they_are_train_nothing(planned):
    code, out, _ = planned("code", "gemma")
    assert code == 0 and "google/codegemma-2b" in out and "public, not downloaded" in out
    trainings = out.partition("Trainings, each")[2].partition("Evaluations")[0]
    assert re.findall(r"^  (\w+)  .* h ", trainings, re.MULTILINE) == ["calm", "random_aug", "vanilla_aug", "lora"]
    assert "text: its data is not here yet" in out


def test_seeds_are_one_row_and_models_from_scratch_need_no_tokenizer(planned):
    plan = json.loads(planned("ntl", "small", "--json")[1])
    assert plan["models"] == []
    runs = {row["stage"]: row["runs"] for row in plan["trainings"]}
    assert runs == {"aug": 1, "anchor": 1, "calm": 3, "random_aug": 3, "lora": 3}
    anchor = next(row for row in plan["trainings"] if row["stage"] == "anchor")
    assert anchor["parameters"] == 32000 * 768 + 12 * (4 * 768**2 + 3 * 768 * 2048 + 2 * 768) + 768
    # A preset for about an hour on an A100; evaluations on small data add next to nothing here.
    assert 0.5 < plan["totals"]["hours"]["A100"] < 1


def test_a_pair_with_two_tokenizers_is_planned(planned):
    code, out, _ = planned("ntl", "smollm2", "aug.base=EleutherAI/pythia-160m", "anchor.base=google/gemma-2b", "--json")
    assert code == 0 and any(row["stage"] == "calm" for row in json.loads(out)["trainings"])


def test_an_aug_that_is_trained_further_keeps_its_tokenizer(planned, tmp_path):
    made = {"anchor": families.gpt2_style, "aug": families.llama3_style}
    for seed, (name, tokenizer) in enumerate(made.items()):
        base("llama", tokenizer(), seed).save_pretrained(tmp_path / name)
        tokenizer().save_pretrained(tmp_path / name)
    bases = [f"{name}.base={tmp_path / name}" for name in made]
    few = [
        "data.aug.parallel=[nllb_seed]",
        "data.anchor.languages=[]",
        "tasks=[flores]",
        "compare=[lora]",
        "compose.every=1",
    ]
    settings = [*bases, *few, f"data.tokenizer={tmp_path / 'aug'}"]
    code, out, err = planned("ntl", "gemma3-smollm2", *settings, "--json")
    assert code == 0, err
    assert any(row["stage"] == "calm" for row in json.loads(out)["trainings"])


@pytest.mark.parametrize("change, message", [
    (["aug.base=some/model"], "'some/model' is neither a folder"),
    (["compose.every=1"], "gives 32 connections, but the anchor has 24 layers"),
])  # fmt: skip
def test_a_plan_refuses_what_the_experiment_would(planned, change, message):
    code, out, err = planned("ntl", "smollm2", *change)
    assert code == 2 and out == ""
    assert re.search(message, err) and len(err.splitlines()) == 1
