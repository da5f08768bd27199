"""Several processes: the same losses as one, checkpoints that fit every layout, one line for what goes wrong."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.methods import ADAPTERS
from calmctl.cli.main import main
from calmctl.errors import CalmctlError, UserError
from calmctl.modeling.loss import IGNORED
from calmctl.processes.ranks import Ranks
from calmctl.training import batches as batches_module
from calmctl.training.batches import Batches
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.examples import load_examples
from calmctl.training.settings import CurriculumSettings, TrainSettings
from data_builders.kv.tokenizers import build_word_tokenizer
from data_builders.row_files import read_jsonl
from data_builders.values import read_json
from tests.own_tokenizers import base
from tests.tokenizer_families import gpt2_style, llama3_style
from tests.two_processes import TEXTS, Config, composition, continuation, run_job

ROOT = Path(__file__).resolve().parents[1]
MODEL = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": True,
}  # fmt: skip
SETTINGS = TrainSettings(
    steps=4, batch_size=8, accumulation=2, lr=0.01, warmup_steps=1, save_every=2, log_every=1, bucket_width=4,
    validation_share=0.2, keep_best=True,
)  # fmt: skip
TIMES = ("seconds", "tokens_per_second")
LAYOUTS = ("none", "fsdp")
KINDS = ("train", "compose", "own tokenizers", "lora", "prefix")
# Losses of another order of summation; Muon orthogonalises in bfloat16.
TOLERANCE = 2e-5


def save_data(folder: Path) -> None:
    """A tokenizer, and additions of two and three operands."""
    build_word_tokenizer(["ab"], ["solve:"]).save_pretrained(folder / "tokenizer")
    generator, rows = np.random.default_rng(0), []
    for count in [2, 3] * 20:
        numbers = generator.integers(1, 30, count)
        prompt = f"solve: {' + '.join(map(str, numbers))} ="
        rows.append({"prompt": prompt, "completion": f" {numbers.sum()}", "meta": {"num_operands": count}})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def configuration(kind: str, folder: Path, **settings: object) -> Config:
    data = str(folder / "train.jsonl")
    if kind in ADAPTERS:
        train = replace(SETTINGS, **settings)
        own = {"size": 3, "merge": kind == "lora"}
        return BaselineConfig(kind, str(folder / "anchor"), **own, dataset=data, seed=3, train=train)
    if kind == "own tokenizers":
        bases = str(folder / "own_anchor"), (str(folder / "own_aug"), str(folder / "own_anchor"))
        return ComposeConfig(*bases, dataset=data, every=1, seed=3, train=replace(SETTINGS, **settings))
    if kind == "compose":
        bases = str(folder / "anchor"), (str(folder / "aug"),)
        return ComposeConfig(*bases, dataset=data, every=1, seed=3, train=replace(SETTINGS, **settings))
    course = CurriculumSettings("num_operands", 2, 3, threshold=0.001)
    train = replace(SETTINGS, curriculum=course, optimizer="muon", **settings)
    return TrainConfig(str(folder / "tokenizer"), dataset=data, model=MODEL, seed=3, train=train)


def in_two_processes(configs: Mapping[str, Config], folder: Path) -> dict[str, str]:
    file = folder / "configs.pickle"
    file.write_bytes(pickle.dumps(dict(configs)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "tests.two_processes", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as torchrun:
        try:
            _, said = torchrun.communicate(timeout=500)
        finally:
            torchrun.terminate()  # which takes its processes along
    assert torchrun.returncode == 0, said
    return pickle.loads(file.with_suffix(".refused").read_bytes())


def interrupted_copy(run: Path, out: Path) -> None:
    """Copy a run as it was after its first checkpoint."""
    shutil.copytree(run, out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "checkpoint-4")
    facts = read_json(out / "run.json")
    (out / "run.json").write_text(json.dumps(facts | {"status": "interrupted"}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Runs `KIND-LAYOUT` (`one` process, or two), `KIND-one-then-LAYOUT` resumed in another; what was refused."""
    folder = tmp_path_factory.mktemp("distributed")
    save_data(folder)
    for name, seed in (("anchor", 1), ("aug", 2)):
        run_job(replace(configuration("train", folder, steps=0), seed=seed), folder / name)
    for seed, (name, make) in enumerate((("own_anchor", gpt2_style), ("own_aug", llama3_style))):
        base("llama", make(), seed).save_pretrained(folder / name)
        make().save_pretrained(folder / name)
    plan: dict[str, Config] = {}
    for kind in KINDS:
        run_job(configuration(kind, folder), folder / f"{kind}-one")
        for layout in LAYOUTS:
            plan[f"{kind}-{layout}"] = plan[f"{kind}-one-then-{layout}"] = configuration(kind, folder, sharding=layout)
            interrupted_copy(folder / f"{kind}-one", folder / f"{kind}-one-then-{layout}")
    plan["refused-batch"] = configuration("train", folder, batch_size=6)
    overfitting = {"eval_every": 1, "lr": 0.1, "adamw_lr": 0.1}
    run_job(configuration("train", folder, **overfitting), folder / "best-one")
    plan["best-fsdp"] = configuration("train", folder, sharding="fsdp", **overfitting)
    # Steps of two or three examples.
    budget = {"accumulation": 1, "batch_tokens": 32, "bucket_width": 1}
    run_job(configuration("compose", folder, **budget), folder / "budget-one")
    plan["budget-none"] = configuration("compose", folder, **budget)
    # A step is one example, of which the second process has none.
    diverging = {"lr": 1e30, "adamw_lr": 1e30, "batch_tokens": 16, "accumulation": 1}
    plan["diverged"] = configuration("train", folder, **diverging, validation_share=0.0, keep_best=False)
    plan["refused-precision"] = configuration("train", folder, sharding="fsdp", precision="fp16")
    refused = in_two_processes(plan, folder)
    for kind in KINDS:
        for layout in LAYOUTS:
            out = folder / f"{kind}-{layout}-then-one"
            interrupted_copy(folder / f"{kind}-{layout}", out)
            run_job(configuration(kind, folder), out)
    return folder, refused


OTHERS = [*LAYOUTS, *(f"one-then-{layout}" for layout in LAYOUTS), *(f"{layout}-then-one" for layout in LAYOUTS)]


@pytest.mark.slow
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_and_change_of_layout_trains_the_same(
    runs: tuple[Path, dict[str, str]], kind: str, other: str
) -> None:
    folder, _ = runs
    one, two = folder / f"{kind}-one", folder / f"{kind}-{other}"
    rows, others = read_jsonl(one / "train_log.jsonl"), read_jsonl(two / "train_log.jsonl")
    assert [row["step"] for row in others] == [*([0] if kind != "train" else []), 1, 2, 2, 3, 4, 4]
    measured = {"loss", "validation_loss", "validation_bits_per_byte", "anchor_loss"}
    for row, same in zip(rows, others, strict=True):
        assert row.keys() == same.keys() and measured & row.keys()
        assert all(same[name] == pytest.approx(row[name], rel=TOLERANCE) for name in measured & row.keys())
        assert all(same[name] == row[name] for name in row if name not in {*measured, *TIMES})
    results, same_results = read_json(one / "metrics.json"), read_json(two / "metrics.json")
    assert results["step"] == results["best_step"] == same_results["step"] and results["n"] == same_results["n"]
    weights, same = load_file(one / "model" / "model.safetensors"), load_file(two / "model" / "model.safetensors")
    assert weights.keys() == same.keys()
    # AdamW's first steps have the size of the rate whatever the gradient, so its noise shows where there is none.
    assert all((weights[name] - same[name]).abs().mean() < 1e-3 for name in weights)
    facts = read_json(two / "run.json")
    assert facts["status"] == "complete" and facts["processes"] == (1 if other.endswith("then-one") else 2)
    assert facts["total_parameters"] == read_json(one / "run.json")["total_parameters"]
    assert (
        read_json(two / "model" / "config.json")["architectures"]
        == (read_json(one / "model" / "config.json")["architectures"])
    )


@pytest.mark.slow
def test_what_two_processes_cannot_share_is_refused(runs: tuple[Path, dict[str, str]]) -> None:
    _, refused = runs
    assert refused["refused-batch"] == (
        "train.batch_size=6 must be a multiple of train.accumulation=2 times 2 processes; change one of them"
    )
    assert "use bf16" in refused["refused-precision"]


@pytest.mark.slow
def test_shares_of_unequal_size_are_weighed_as_one_process_does(runs: tuple[Path, dict[str, str]]) -> None:
    folder, _ = runs
    one, two = (
        [row["loss"] for row in read_jsonl(folder / name / "train_log.jsonl") if "loss" in row]
        for name in ("budget-one", "budget-none")
    )
    assert len(one) == 4 and two == pytest.approx(one, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("aug_reads", ["all", "prompt"])
def test_processes_that_share_layers_go_on_with_texts_of_their_own(runs: tuple[Path, dict[str, str]], aug_reads: str):
    """An aug has nothing new to read at some of the anchor's tokens, and each process at others."""
    folder, _ = runs
    model = composition(folder, aug_reads)
    for index, text in enumerate(TEXTS):
        assert read_json(folder / f"continued-{aug_reads}-{index}.json") == continuation(model, folder, text)


@pytest.mark.slow
def test_the_best_weights_of_a_sharded_model_are_kept(runs: tuple[Path, dict[str, str]]) -> None:
    folder, _ = runs
    one, two = (read_json(folder / name / "metrics.json") for name in ("best-one", "best-fsdp"))
    assert two["step"] == one["step"] < 4
    assert two["metrics"]["validation_loss"] == pytest.approx(one["metrics"]["validation_loss"], rel=TOLERANCE)
    weights = [load_file(folder / name / "model" / "model.safetensors") for name in ("best-one", "best-fsdp")]
    assert all((weights[0][name] - weights[1][name]).abs().mean() < 1e-3 for name in weights[0])


@pytest.mark.slow
def test_a_divergence_that_one_process_sees_ends_all(runs: tuple[Path, dict[str, str]]) -> None:
    folder, refused = runs
    assert re.match(r"step [23]: the .* after rows? \d+ of the data", refused["diverged"])
    facts = read_json(folder / "diverged" / "run.json")
    assert facts["status"] == "failed" and refused["diverged"] in facts["error"]


def test_processes_share_every_batch_and_one_without_rows_learns_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_data(tmp_path)
    examples = load_examples(tmp_path / "train.jsonl", build_word_tokenizer(["ab"], ["solve:"]), TrainSettings())
    for tokens in (0, 16):  # 16: one example, so that the second process has none
        batches = Batches(examples, replace(SETTINGS, accumulation=1, batch_tokens=tokens), 0, 0)
        shares = []
        for index in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(batches_module, "current_ranks", lambda index=index: Ranks(index, 2))
                shares.append(next(iter(batches)))
        whole = next(iter(batches))
        learned = [batch["labels"][batch["labels"] != IGNORED] for batch in (*shares, whole)]
        assert torch.equal(torch.cat(learned[:2]), learned[2])
        assert (len(learned[1]) == 0) == bool(tokens)


# Launching.


@pytest.mark.parametrize("given, message", [
    (["--nproc-per-node", "none"], "give a number from 1, `gpu` or `auto`"),
    (["--nproc-per-node", "2", "--nnodes", "2"], "--rdzv-endpoint is not set"),
    (["--nproc-per-node", "2", "--rdzv-endpoint", "here"], "give it as host:port"),
    (["--nproc-per-node", "2", "--rdzv-endpoint", "localhost:1x"], "give it as host:port"),
    (["--nproc-per-node", "2", "--rdzv-endpoint", "localhost:99999"], "that port cannot be used here"),
    pytest.param(["--nproc-per-node", "gpu"], "there is no GPU here",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")),
])  # fmt: skip
def test_a_launch_that_cannot_be_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    assert main(["train", "anchor", "--out", str(tmp_path / "out"), *given]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


def test_of_several_failures_the_first_cause_is_told(tmp_path: Path) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    from calmctl.processes.launch import _first_cause

    def failure(rank: int, code: int, line: str = "", time: float = 0.0) -> ProcessFailure:
        file = tmp_path / f"{rank}.json"
        if line:
            file.write_text(json.dumps({"message": line, "timestamp": 1, "calmctl": {"line": line, "time": time}}))
        return ProcessFailure(rank, 1, code, str(file))

    lost = failure(0, 1, "connection closed by peer", 2.0)
    assert isinstance(_first_cause({0: lost, 1: failure(1, 2, "bad data", 1.0)}), UserError)
    assert str(_first_cause({0: lost, 1: failure(2, -9)})) == "process 1 was killed by SIGKILL (perhaps out of memory)"
    assert str(_first_cause({0: lost, 1: failure(3, 1, "out of memory", 1.0)})) == "out of memory"
    # Those that end because of it say nothing.
    for code in (2, -15):
        assert str(_first_cause({0: lost, 1: failure(4, code)})) == "connection closed by peer"
    assert not isinstance(_first_cause({0: lost}), UserError) and isinstance(_first_cause({0: lost}), CalmctlError)
