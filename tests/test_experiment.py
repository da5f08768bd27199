"""Experiments from end to end, which the tests copy from where they were made."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.reporting.systems_table import SYSTEMS
from data_builders.values import read_yaml
from tests.forked import forked_stages
from tests.report_folder import of, read

__all__ = ["forked_stages"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_stages")]

STEPS = ["anchor.train.steps=3", "aug.train.steps=3", "compose.train.steps=2", "baseline.train.steps=2"]
MODELS = ("m_A", "m_B", "calm")


@dataclass(frozen=True)
class Case:
    """An experiment: its task, what it is first compared with, and with what later, by which it has to make what."""

    task: str
    first: tuple[str, ...]
    later: tuple[str, ...]
    later_keys: tuple[str, ...]
    made_later: set[str]
    refused: tuple[tuple[tuple[str, ...], str], ...]
    settings: tuple[str, ...] = ()


CASES = {
    "ntl": Case(
        "flores",
        ("random_aug", "vanilla_aug", "aug_as_encoder", "lora", "m_B_finetuned"),
        ("compare=[random_aug,prefix]", "tasks=[flores]"),
        ("random_aug", "prefix"),
        {"prefix"},
        (
            (("compare=[prefix]", "flores.limit=3"), "was started with another configuration (limit: 4 -> 3"),
            (("compare=[prefix]", "tasks=[flores,mgsm]", "mgsm.dataset=nowhere/at/all"), "nowhere/at/all"),
            # Data of another experiment is not taken for one's own that was moved.
            (("compare=[prefix]", "flores.dataset={other}/flores200"), "another configuration (dataset"),
        ),
    ),
    "kv": Case(
        "kv",
        ("random_aug",),
        ("compare=[random_aug]", "--ablations", "ablations.methods=[lora]", "ablations.vanilla_aug=false"),
        ("random_aug", "share_0.5", "lora"),
        {"data_share_0.5", "share_0.5", "lora"},
        (
            (("data.num_keys=61",), "data.num_keys: 60 -> 61"),
            (("--ablations", "ablations.every=[9]"), "ablations.every=9: m_A has 2 layers only"),
        ),
        ("ablations.every=[]", "ablations.heads=[]", "ablations.encoder_aug=false", "ablations.further_training=false"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A finished experiment."""

    name: str
    out: Path
    benchmarks: Path

    @property
    def case(self) -> Case:
        """Return what it is."""
        return CASES[self.name]

    @property
    def first(self) -> str:
        """Return the setting that names what it is compared with."""
        return f"compare=[{','.join(self.case.first)}]"

    def run(self, *settings: str) -> int:
        """Run it with settings."""
        given = ["--data", str(self.benchmarks)] if self.name != "kv" else []
        command = ["reproduce", self.name, "--preset", "smoke", "--out", str(self.out), *given]
        return main([*command, *STEPS, *self.case.settings, *settings])

    def written(self, *patterns: str) -> dict[Path, int]:
        """Return when files of its folder were written."""
        found = (path for pattern in patterns for path in self.out.rglob(pattern))
        return {path.relative_to(self.out): path.stat().st_mtime_ns for path in found}

    def stages(self) -> dict[Path, int]:
        """Return when its stages began and were done."""
        found = self.written("run.json", "metrics.json").items()
        return {path: when for path, when in found if path != Path("run.json")}

    def keys(self) -> list[str]:
        """Return the systems of its results."""
        return [system["key"] for system in read(self.out / "results.json")["systems"]]


@pytest.fixture(scope="module", params=list(CASES))
def finished(
    request: pytest.FixtureRequest, forked_stages: None, benchmarks: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    made = Made(request.param, tmp_path_factory.mktemp("experiment") / "out", benchmarks)
    assert made.run(made.first) == 0
    # Moved, so that what still reads from there does not work.
    return Made(made.name, made.out.rename(made.out.with_name("moved")), benchmarks)


@pytest.fixture
def copied(finished: Made, tmp_path: Path) -> Made:
    return Made(finished.name, Path(shutil.copytree(finished.out, tmp_path / "copied")), finished.benchmarks)


def test_an_experiment_runs_from_data_to_report(finished: Made) -> None:
    results = read(finished.out / "results.json")
    assert finished.keys() == [*MODELS, *finished.case.first] and results["section"] == finished.name
    for system in results["systems"]:
        assert (system["label"], system["group"]) == (SYSTEMS[system["key"]].label, SYSTEMS[system["key"]].group)
        for run in system["runs"]:
            measured = read(finished.out / run["evaluations"][finished.case.task] / "metrics.json")
            assert run["metrics"][finished.case.task] == measured["metrics"]
            assert run["is_trained"] and run["cost"]["trainable_parameters"] == run["trainable_parameters"]
    if "lora" in finished.case.first:
        assert abs(of(results, "lora")["runs"][0]["difference_percent"]) < 5
    assert (finished.out / "report.html").is_file() and (finished.out / "report.md").is_file()
    assert (finished.out / "table1.json").is_file() == (finished.name == "kv")
    if finished.name == "ntl":
        assert read(finished.out / "data" / "manifest.json")["overlap"]["left"] == {"exact": 0, "near": 0}


def test_what_is_done_is_not_even_started_again_nor_where_it_was_moved_to(copied: Made) -> None:
    everything = "run.json", "metrics.json", "results.json", "table1.json", "config.yaml", "*.log"
    before = copied.written(*everything)
    evaluation = Path("eval") / copied.case.task / "calm" / "metrics.json"
    assert before.keys() >= {Path("results.json"), Path("logs/calm.log"), evaluation}
    assert copied.run(copied.first, "jobs=1") == 0
    assert copied.written(*everything) == before


def test_other_comparisons_and_tasks_can_be_asked_later(copied: Made, capsys: pytest.CaptureFixture[str]) -> None:
    before, seconds = copied.stages(), read(copied.out / "run.json")["seconds"]
    capsys.readouterr()
    assert copied.run(*copied.case.later, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    results, run = read(copied.out / "results.json"), read(copied.out / "run.json")
    assert copied.keys() == [*MODELS, *copied.case.later_keys] and told["systems"] == results["systems"]
    after = copied.stages()
    assert before.items() <= after.items()
    assert {path.parent.name for path in after.keys() - before} == copied.case.made_later
    assert run["status"] == "complete" and run["resumes"] == 1
    assert run["seconds"] > seconds and results["seconds"]["total"] > seconds
    assert read_yaml(copied.out / "config.yaml")["tasks"] == results["tasks"] == [copied.case.task]
    if copied.name == "kv":
        rows = read(copied.out / "table5.json")["rows"]
        assert list(rows) == copied.keys() and told["table5"]["rows"] == rows
        assert abs(rows["lora"]["difference_percent"]) < 2 and rows["share_0.5"]["value"] == 0.5
    again = copied.written("run.json", "results.json")
    assert copied.run(*copied.case.later) == 0 and copied.written("run.json", "results.json") == again


def test_an_extension_that_ends_before_its_results_is_not_complete(copied: Made) -> None:
    before = (copied.out / "results.json").read_text()
    damaged = copied.out / "eval" / copied.case.task / "calm" / "metrics.json"
    kept = damaged.read_text()
    damaged.write_text("{")
    assert copied.run("compare=[]") != 0
    assert read(copied.out / "run.json")["status"] == "failed"
    assert (copied.out / "results.json").read_text() == before
    damaged.write_text(kept)
    assert copied.run("compare=[]") == 0 and copied.keys() == [*MODELS]


def test_what_is_refused_changes_nothing(copied: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, other = copied.written("*.*"), shutil.copytree(copied.benchmarks, tmp_path / "elsewhere")
    for settings, message in (*copied.case.refused, ((copied.first, "compose.every=2"), "compose.every: 1 -> 2")):
        for _ in range(2):
            assert copied.run(*(setting.format(other=other) for setting in settings)) == 2
            assert message in capsys.readouterr().err and copied.written("*.*") == before


def test_an_experiment_with_two_augs_runs_from_data_to_report(tmp_path: Path) -> None:
    cuts = ["data.anchor_cut=pieces", "data.aug_cuts=[words,words_triples]", "compare=[one_tokenizer]"]
    sizes = ["data.num_keys=80", "data.num_test_rows=2", "jobs=2", *STEPS]
    assert main(["reproduce", "kv", "--preset", "smoke", "--out", str(tmp_path), *cuts, *sizes]) == 0
    table = read(tmp_path / "table1.json")
    assert {"m_A", "m_A2", "m_B", "calm", "one_tokenizer"} <= table.keys() and "random_aug" not in table
    assert list(table["calm_by_augs"]) == ["1", "2", "1+2"]
    report = (tmp_path / "report.md").read_text()
    assert "## Whose keys" in report and SYSTEMS["one_tokenizer"].label in report
    segmentations = read(tmp_path / "calm" / "model" / "config.json")["segmentations"]
    assert len(segmentations) == 2 and None not in segmentations
    alike = read(tmp_path / "one_tokenizer" / "model" / "config.json")["segmentations"]
    assert alike == [None, None]
