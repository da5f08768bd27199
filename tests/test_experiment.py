"""One experiment on real text from end to end, which the tests copy from where it was made."""

import shutil
from pathlib import Path

import pytest

from calmctl.cli.main import main
from data_builders.values import read_json
from tests.toy_benchmarks import write_benchmarks

pytestmark = pytest.mark.slow

CHOSEN = "compare=[random_aug,vanilla_aug,aug_as_encoder,lora,m_B_finetuned]"
STEPS = ["anchor.train.steps=3", "aug.train.steps=3", "compose.train.steps=2", "baseline.train.steps=2"]


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("toy") / "benchmarks")


def reproduce(benchmarks: Path, out: Path, *settings: str) -> int:
    command = ["reproduce", "ntl", "--preset", "smoke", "--data", str(benchmarks), "--out", str(out), *STEPS]
    return main([*command, *settings])


def made(out: Path, *patterns: str) -> dict[Path, int]:
    """Return when files of a folder were written."""
    found = (path for pattern in patterns for path in out.rglob(pattern))
    return {path.relative_to(out): path.stat().st_mtime_ns for path in found}


def stages_made(out: Path) -> dict[Path, int]:
    return {path: when for path, when in made(out, "run.json", "metrics.json").items() if path != Path("run.json")}


@pytest.fixture(scope="module")
def finished(benchmarks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("experiment") / "out"
    assert reproduce(benchmarks, out, CHOSEN) == 0
    return out.rename(out.with_name("moved"))  # so that what still reads from there does not work


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def test_an_experiment_runs_from_data_to_report(finished: Path) -> None:
    results = read_json(finished / "results.json")
    keys = ["m_A", "m_B", "calm", "random_aug", "vanilla_aug", "aug_as_encoder", "lora", "m_B_finetuned"]
    assert [system["key"] for system in results["systems"]] == keys
    for system in results["systems"]:
        for run in system["runs"]:
            measured = read_json(finished / run["evaluations"]["flores"] / "metrics.json")
            assert run["metrics"]["flores"] == measured["metrics"] and measured["metrics"]["bits_per_byte"] > 0
    lora = next(system for system in results["systems"] if system["key"] == "lora")["runs"][0]
    assert abs(lora["difference_percent"]) < 5
    assert read_json(finished / "data" / "manifest.json")["overlap"]["left"] == {"exact": 0, "near": 0}
    assert (finished / "report.html").is_file() and (finished / "report.md").is_file()


def test_what_is_done_is_not_even_started_again_nor_where_it_was_moved_to(benchmarks: Path, copied: Path) -> None:
    everything = "run.json", "metrics.json", "results.json", "config.yaml", "*.log"
    before = made(copied, *everything)
    assert before.keys() >= {Path("results.json"), Path("logs/calm.log"), Path("eval/flores/calm/metrics.json")}
    assert reproduce(benchmarks, copied, CHOSEN, "jobs=1") == 0
    assert made(copied, *everything) == before


def test_other_comparisons_and_tasks_can_be_asked_later(benchmarks: Path, copied: Path) -> None:
    before, seconds = stages_made(copied), read_json(copied / "run.json")["seconds"]
    assert reproduce(benchmarks, copied, "compare=[random_aug,prefix]", "tasks=[flores]") == 0
    results, run = read_json(copied / "results.json"), read_json(copied / "run.json")
    assert [system["key"] for system in results["systems"]] == ["m_A", "m_B", "calm", "random_aug", "prefix"]
    assert results["tasks"] == ["flores"] and "tasks:\n- flores\n" in (copied / "config.yaml").read_text()
    after = stages_made(copied)
    assert before.items() <= after.items() and {path.parent.name for path in after.keys() - before} == {"prefix"}
    assert run["status"] == "complete" and run["resumes"] == 1
    assert run["seconds"] > seconds and results["seconds"]["total"] > seconds


def test_an_extension_that_ends_before_its_results_is_not_complete(benchmarks: Path, copied: Path) -> None:
    before, damaged = (copied / "results.json").read_text(), copied / "eval" / "flores" / "calm" / "metrics.json"
    kept = damaged.read_text()
    damaged.write_text("{")
    assert reproduce(benchmarks, copied, "compare=[lora]") != 0
    assert read_json(copied / "run.json")["status"] == "failed" and (copied / "results.json").read_text() == before
    damaged.write_text(kept)
    assert reproduce(benchmarks, copied, "compare=[lora]") == 0
    assert [system["key"] for system in read_json(copied / "results.json")["systems"]][3:] == ["lora"]


def test_what_is_refused_changes_nothing(benchmarks: Path, copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = made(copied, "*.*")
    for settings, message in (
        (["compare=[prefix]", "flores.limit=3"], "was started with another configuration (limit: 4 -> 3"),
        (["compare=[prefix]", "tasks=[flores,mgsm]", "mgsm.dataset=nowhere/at/all"], "nowhere/at/all"),
        # Data of another experiment is not taken for one's own that was moved.
        (
            ["compare=[prefix]", f"flores.dataset={benchmarks}/../benchmarks/flores200"],
            "another configuration (dataset",
        ),
        ([CHOSEN, "compose.every=2"], "compose.every: 1 -> 2"),
    ):
        for _ in range(2):
            assert reproduce(benchmarks, copied, *settings) == 2
            assert message in capsys.readouterr().err and made(copied, "*.*") == before
