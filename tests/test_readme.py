"""The commands of the README, typed as a newcomer would, and what the commands say when the input is wrong."""

import json
import re
import shlex
from pathlib import Path

import pytest

from calmctl.cli.main import main

README = Path(__file__).parents[1] / "README.md"


def step_by_step() -> list[list[str]]:
    """Return the commands of the README's walk through the experiment."""
    block = README.read_text().split("step by step, with a smaller preset:", 1)[1].split("\n## ", 1)[0]
    return [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("    calmctl ")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory, module_monkeypatch):
    """A folder in which the README's commands have been run."""
    folder = tmp_path_factory.mktemp("readme")
    module_monkeypatch.chdir(folder)
    for command in step_by_step():
        assert main(command) == 0, command
    return folder


@pytest.fixture(scope="module")
def module_monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def call(demo, monkeypatch, capsys):
    """Run a command in the demo's folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(demo)

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(shlex.split(line))
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_walk_through_makes_models_and_metrics(demo):
    metrics = json.loads((demo / "runs/demo/eval/metrics.json").read_text())
    assert set(metrics["metrics"]) == {"kv_subs", "num_math", "kv_math", "kv_math_direct"}
    assert metrics["protocol"]["decoding"] == "greedy" and len(metrics["model"]["bases"]) == 2
    predictions = [json.loads(line) for line in (demo / "runs/demo/eval/predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == 3 * sum(part["n"] for part in metrics["breakdown"]["by_stratum"].values())
    assert metrics["n"] == metrics["breakdown"]["by_stratum"]["held_out"]["n"]


@pytest.mark.parametrize("command", [command[0] for command in step_by_step()] + ["reproduce", "report", "generate"])
def test_every_command_of_the_readme_is_listed_there(command):
    assert re.search(rf"^    calmctl .*\b{command}\b", README.read_text(), re.MULTILINE)


def test_repeating_a_command_does_nothing_and_succeeds(call, demo):
    before = (demo / "runs/demo/calm/model/model.safetensors").stat().st_mtime_ns
    for command in step_by_step():
        code, _, err = call(shlex.join(command))
        assert code == 0, err
    assert (demo / "runs/demo/calm/model/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("model", ["anchor", "calm"])
def test_generate_completes_prompts_of_plain_and_composed_models(call, model):
    code, out, _ = call(f"generate --model runs/demo/{model} 'solve: 12 + 3 =' 'solve: 7 - 1 =' -n 3 --json")
    rows = json.loads(out)
    assert code == 0 and [row["prompt"] for row in rows] == ["solve: 12 + 3 =", "solve: 7 - 1 ="]
    code, out, _ = call(f"generate --model runs/demo/{model} 'solve: 12 + 3 =' -n 3")
    assert code == 0 and out.startswith("solve: 12 + 3 =") and out.strip() == rows[0]["prompt"] + rows[0]["completion"]


def test_the_plan_of_a_composition_counts_what_training_trains(call, demo):
    line = "compose --preset kv/smoke --anchor runs/demo/anchor --aug runs/demo/aug --out y"
    line += " --data runs/demo/data/dc_mix.parquet"
    code, out, _ = call(f"{line} --dry-run --json")
    plan = json.loads(out)
    facts = json.loads((demo / "runs/demo/calm/run.json").read_text())
    assert code == 0 and plan["trainable_parameters"] == facts["trainable_parameters"]
    assert (
        plan["anchor"]["parameters"] == json.loads((demo / "runs/demo/anchor/run.json").read_text())["total_parameters"]
    )
    assert not (demo / "y").exists()


def test_ls_and_show_know_the_runs(call):
    code, out, _ = call("ls models runs --json")
    assert code == 0 and "runs/demo/calm" in out and "runs/demo/eval" not in out
    code, out, _ = call("show runs/demo/eval --json")
    assert code == 0 and json.loads(out)["status"] == "complete"
    code, out, _ = call("ls tasks")
    assert code == 0 and "kv" in out


def test_a_self_contained_composition_is_loaded_without_its_bases(call, demo):
    line = (
        "compose --preset kv/smoke --anchor runs/demo/anchor --aug runs/demo/aug --data runs/demo/data/dc_mix.parquet "
        "--out runs/demo/whole --merge-bases train.steps=0"
    )
    assert call(line)[0] == 0
    moved = (demo / "runs/demo/whole/model").rename(demo / "moved")
    code, out, _ = call(f"generate --model {moved} 'solve: 12 + 3 =' -n 3")
    assert code == 0 and out.startswith("solve: 12 + 3 =")


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    "--aug runs/demo/aug connections=[[[0,0]],[[0,0],[1,1]]]",
    "num=1 bridge.gate=true bridge.dropout=0.1 bridge.norm=false aug_reads=prompt",
    "random_aug=true bridge.zero_init=false",
], ids=["two-augs", "encoder", "random"])  # fmt: skip
def test_variants_are_planned_trained_and_used_by_the_command_line(call, options, demo):
    name = "variant-" + options.split("=")[0].split()[-1]
    line = (
        "compose --preset kv/smoke --anchor runs/demo/anchor --aug runs/demo/aug "
        f"--data runs/demo/data/dc_mix.parquet --out runs/demo/{name} train.steps=2 {options}"
    )
    plan = json.loads(call(f"{line} --dry-run --json")[1])
    assert call(line)[0] == 0
    run = json.loads((demo / f"runs/demo/{name}/run.json").read_text())
    config = json.loads((demo / f"runs/demo/{name}/model/config.json").read_text())
    assert plan["trainable_parameters"] == run["trainable_parameters"]
    assert [aug["connections"] for aug in plan["bridges"]] == config["connections"]
    assert len(config["augs"]) == line.count("--aug ")
    code, out, _ = call(f"generate --model runs/demo/{name} 'solve: 12 + 3 =' -n 3")
    assert code == 0 and out.startswith("solve: 12 + 3 =")


COMPOSE = "compose --preset kv/smoke --data runs/demo/data/dc_mix.parquet --out runs/new"


@pytest.mark.parametrize("line, message", [
    ("eval chess --model runs/demo/calm --data runs/demo/data --out x", "task='chess' is not one of kv"),
    ("eval kv --model runs/demo/nothing --data runs/demo/data --out x", "runs/demo/nothing"),
    ("eval kv --model runs/demo/calm --data runs/demo --out x", "manifest"),
    ("eval kv --data runs/demo/data --out x", "model is not set; give --model"),
    ("eval kv --preset nope --model a --data b --out x", "default"),
    (f"{COMPOSE} --anchor runs/demo/anchor", "augs is not set; give --aug"),
    (f"{COMPOSE} --aug runs/demo/aug", "anchor is not set; give --anchor"),
    (f"{COMPOSE} --anchor runs/demo/eval --aug runs/demo/aug", "this run has no model"),
    (f"{COMPOSE} --anchor runs/demo/anchor --aug runs/demo/aug connections=[[0,7]]", "anchor layer 7 .* layers 0 to 1"),
    (f"{COMPOSE} --anchor runs/demo/anchor --aug runs/demo/aug bridge.num_heads=5", "num_heads=5 does not divide"),
    (f"{COMPOSE} --anchor runs/demo/anchor --aug runs/demo/aug train.stepz=5", "'train.stepz'.*mean 'train.steps'"),
    (f"{COMPOSE} --anchor runs/demo/anchor --aug runs/demo/aug train.steps=many", "train.steps=many: .* an integer"),
    ("train aug --preset kv/aug_smoke --data no.jsonl --tokenizer runs/demo/anchor --out x", "no such file or folder"),
    ("train aug --preset kv/nope --out x", "nope.*aug_smoke"),
    ("reproduce kv --preset huge --out x", "huge.*paper, smoke, tiny"),
    ("reproduce kv --preset smoke --out runs/demo/calm", "runs/demo/calm"),
    ("generate --model runs/demo/calm 'solve: 1 =' -n 1000", "exceed the model's context of 128"),
    ("generate --model runs/demo/data 'x'", "runs/demo/data"),
])  # fmt: skip
def test_wrong_input_is_one_clear_line_and_exit_code_2(call, line, message):
    code, out, err = call(line)
    lines = [text for text in err.splitlines() if text.startswith("calmctl: ")]
    assert code == 2, err
    assert out == "" and len(lines) == 1 and re.search(message, lines[0]), err
    assert "Traceback" not in err


def test_a_damaged_checkpoint_is_one_clear_line(call, demo):
    line = (
        "compose --preset kv/smoke --anchor runs/demo/anchor --aug runs/demo/aug --data runs/demo/data/dc_mix.parquet "
        "--out runs/demo/damaged train.steps=0"
    )
    assert call(line)[0] == 0
    file = demo / "runs/demo/damaged/model/model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    code, _, err = call("generate --model runs/demo/damaged 'solve: 1 ='")
    assert code == 2 and "damaged" in err
    file.unlink()
    code, _, err = call("generate --model runs/demo/damaged 'solve: 1 ='")
    assert code == 2 and "missing" in err
