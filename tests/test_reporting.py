"""Reports show the figures that the files hold, say what was not run, and escape what they quote."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import image

from calmctl.cli.report import report
from calmctl.errors import UserError
from calmctl.reporting.kv_report import (
    headline,
    load_kv_results,
    terminal_table,
    write_kv_report,
)
from calmctl.reporting.kv_results import CONTROLS, TRAINING_RUNS
from calmctl.reporting.paper import TABLE_1, paper_table
from calmctl.reporting.plots import groups as plots
from calmctl.reporting.plots import training as training_plot
from calmctl.reporting.provenance import command_line
from tests.kv_folder import RUNS, SYNTHETIC, predictions, write, write_folder, write_lines

HOSTILE = "<script>alert('x')</script> | `code` [link](http://evil) **bold**"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("reports") / "kv")
    write_kv_report(folder)
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay plots out without drawing them, which is what takes time."""
    for module in (plots, training_plot):
        monkeypatch.setattr(module, "to_png", lambda figure: b"\x89PNG not drawn")


@pytest.fixture
def folder(tmp_path: Path, undrawn: None) -> Path:
    return write_folder(tmp_path / "kv")


class _Page(HTMLParser):
    """The text of a page, its tags, and its addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.images: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        self.links += [found["href"] or ""] if tag == "a" else []
        self.images += [found["src"] or ""] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page(folder: Path) -> _Page:
    return _Page((folder / "report.html").read_text(encoding="utf-8"))


def markdown(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


# The report


def test_the_paper_table_is_the_papers() -> None:
    assert TABLE_1 == {
        "m_A": {"kv_subs": 98.1, "num_math": 4.2, "kv_math": 0.7},
        "m_B": {"kv_subs": 0.0, "num_math": 73.7, "kv_math": 0.0},
        "calm": {"kv_subs": 92.9, "num_math": 72.0, "kv_math": 84.3},
    }
    assert "2401.02412" in paper_table("table1").source
    with pytest.raises(KeyError, match="table1"):
        paper_table("table99")


def test_every_measured_figure_stands_in_both_reports(written: Path) -> None:
    text, html = markdown(written), page(written).text
    for row in SYNTHETIC.values():
        for value in row:
            assert f"{value:.1f}" in text
            assert f"{value:.1f}" in html


def test_table1_row_has_figures_links_paper_and_differences_in_order(written: Path) -> None:
    line = next(line for line in markdown(written).splitlines() if line.startswith("| [CALM (composed)]"))
    assert line == (
        "| [CALM (composed)](eval/calm) | [95.7](eval/calm) (paper 92.9, +2.8)"
        " | [90.9](eval/calm) (paper 72.0, +18.9) | [86.7](eval/calm) (paper 84.3, +2.4) | [4.4](eval/calm) |"
    )


def test_headline_compares_with_paper_and_says_whether_num_math_is_kept(folder: Path) -> None:
    first, second, third = headline(load_kv_results(folder))
    assert "86.7 percent, paper 84.3 (+2.4 points)" in first
    assert "NUM-MATH is kept: 90.9 composed against 91.6 alone (−0.7 points" in second
    assert third.endswith("m_A 0.4; m_B 0.3; random m_A 0.1.")
    table = json.loads((folder / "table1.json").read_text())
    table["calm"]["num_math"] = 80.0
    write(folder / "table1.json", table)
    assert "NUM-MATH is not kept: 80.0" in headline(load_kv_results(folder))[1]
    table["m_B"]["num_math"] = 0.0
    write(folder / "table1.json", table)
    assert "no NUM-MATH that could be kept" in headline(load_kv_results(folder))[1]


def test_report_says_how_it_was_made(written: Path) -> None:
    for text in (markdown(written), page(written).text):
        for fact in (
            "calmctl reproduce kv --out 'my runs/kv'",
            "0123abcd",
            "Test CPU",
            "5.0 GiB",
            "torch 2.13.0",
        ):
            assert fact in text
        for fact in ("4,321 keys instead of 25,000", "2 h 05 min", "5 min 33 s", "123,456", "seed 7"):
            assert fact in text
        assert "/somewhere" not in text


def test_every_link_and_picture_of_the_reports_exists(written: Path) -> None:
    links = [link for link in page(written).links if not link.startswith("#")]
    links += re.findall(r"\]\(([^)]+)\)", markdown(written))
    assert {"eval/calm", "calm", "anchor", "plots/table1.png", "plots/training_anchor.png"} <= set(links)
    assert not [link for link in links if not (written / link).exists()]


def test_html_is_self_contained(written: Path) -> None:
    found = page(written)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert found.images
    for source in found.images:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    html = (written / "report.html").read_text()
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)


def test_plots_are_drawn_for_every_run_with_a_log_and_are_not_blank(written: Path) -> None:
    names = {path.stem for path in (written / "plots").glob("*.png")}
    trainings = {f"training_{name}" for name in TRAINING_RUNS if name != "aug_random"}
    assert names == {"table1", "controls", "operands", "strata"} | trainings
    for path in (written / "plots").glob("*.png"):
        pixels = image.imread(path)[..., :3]
        inked = (pixels.min(-1) < 0.9).mean()
        assert pixels.shape[1] > 900
        assert 0.005 < inked < 0.6, path.name
        assert pixels.std() > 0.05, path.name
    assert not list((written / "plots").glob(".*")), "temporary files are left behind"


def test_drawing_again_gives_the_same_plot(written: Path) -> None:
    results = load_kv_results(written)
    assert plots.table1_plot(results) == (written / "plots" / "table1.png").read_bytes()


def test_writing_again_gives_the_same_files(folder: Path) -> None:
    before = {path: path.read_bytes() for path in write_kv_report(folder)}
    assert {path: path.read_bytes() for path in write_kv_report(folder)} == before


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["/x/bin/calmctl", "a b"], "calmctl 'a b'"),
        (["/x/calmctl/__main__.py", "ls"], "calmctl ls"),
        ([], "not recorded"),
        (None, "not recorded"),
    ],
)
def test_command_line(command: object, shown: str) -> None:
    assert command_line(command) == shown


# What is missing, damaged or hostile


def test_missing_controls_and_runs_are_said_to_be_not_run(folder: Path) -> None:
    table = json.loads((folder / "table1.json").read_text())
    for key in ("random_aug", "dc_subs", "dc_math"):
        del table[key]
        shutil.rmtree(folder / "eval" / RUNS[key])
        shutil.rmtree(folder / RUNS[key])
    write(folder / "table1.json", table)
    write_kv_report(folder)
    for control in CONTROLS:
        assert f"| {control.label} | not run | not run | not run | not run |" in markdown(folder)
    assert "random m_A not run" in markdown(folder)
    assert "CALM, random m_A not run" in page(folder).text
    assert not (folder / "plots" / "training_calm_random_aug.png").exists()


def test_a_folder_with_nothing_but_its_table_is_reported(tmp_path: Path, undrawn: None) -> None:
    write(tmp_path / "table1.json", {"calm": {"kv_subs": 1.0, "kv_math": None}})
    write_kv_report(tmp_path)
    text = markdown(tmp_path)
    assert "held-out keys: not run (paper: 84.3)" in text
    assert "| CALM (composed) | 1.0 (paper 92.9, −91.9) | not run (paper 72.0) |" in text
    for fact in ("operand count: not run", "stratum: not run", "composed model: not run", "not recorded"):
        assert fact in text


def test_a_figure_that_its_evaluation_does_not_confirm_is_pointed_out(folder: Path) -> None:
    assert load_kv_results(folder).disagreements() == []
    table = json.loads((folder / "table1.json").read_text())
    table["calm"]["kv_math"] = 99.0
    write(folder / "table1.json", table)
    write_kv_report(folder)
    for text in (markdown(folder), page(folder).text):
        assert "table1.json says 99.0, eval/calm/metrics.json says 86.7" in text


def test_hostile_texts_are_shown_not_obeyed(folder: Path) -> None:
    table = json.loads((folder / "table1.json").read_text())
    table |= {"preset": HOSTILE, "deviations": [HOSTILE], "hardware": {"cpu": HOSTILE}, "git_commit": HOSTILE}
    write(folder / "table1.json", table)
    rows = [row | {"completion": HOSTILE, "prompt": HOSTILE} for row in predictions("calm")]
    write_lines(folder / "eval" / "calm" / "predictions.jsonl", rows)
    write_kv_report(folder)
    found = page(folder)
    assert "script" not in found.tags
    assert found.text.count(HOSTILE) >= 5
    assert not [link for link in found.links if "evil" in link]
    outside_code = re.sub(r"(`+) .*? \1", "", markdown(folder))
    assert "<script" not in outside_code
    assert "[link](" not in outside_code
    columns = {line.count("|") - line.count("\\|") for line in found_rows(markdown(folder), "CALM |")}
    assert columns == {5}


def found_rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table1.json", "{", "damaged"),
        ("table1.json", "[]", "expected names and figures"),
        ("table1.json", "{}", "names none of m_A"),
        ("eval/calm/metrics.json", '{"metrics": 3}', "expected names and figures"),
        ("calm/train_log.jsonl", "{}\nnot json\n{}\n", "train_log.jsonl:2: is no JSON"),
    ],
)
def test_damaged_files_are_named(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        write_kv_report(folder)
    assert name in str(error.value)


def test_other_folders_are_refused_and_the_message_names_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; expected .*reproduce kv"):
        write_kv_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no table1\.json .*reproduce kv"):
        write_kv_report(tmp_path)
    write(tmp_path / "run.json", {"kind": "train", "status": "complete"})
    with pytest.raises(UserError, match=r"kind 'train'"):
        write_kv_report(tmp_path)


# The command


def test_report_of_one_folder_prints_its_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report([folder])
    printed = capsys.readouterr()
    assert "86.7 percent, paper 84.3" in printed.out
    assert "CALM (composed)" in printed.out
    assert "wrote" in printed.err
    report([folder], json=True)
    assert json.loads(capsys.readouterr().out)["table1"]["calm"]["kv_math"] == 86.68


def test_report_of_several_folders_prints_the_mean(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_folder(tmp_path / "other", seed=8, change=1.0)
    report([folder, other], out=tmp_path / "seeds")
    assert "87.2 ± 0.7" in capsys.readouterr().out
    assert (tmp_path / "seeds" / "seeds.md").exists()
    report([folder, other], json=True)
    assert json.loads(capsys.readouterr().out)["seeds"] == [7, 8]
    with pytest.raises(UserError, match="--out"):
        report([folder], out=tmp_path / "seeds")


def test_terminal_table_cuts_nothing_when_piped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terminal_table(folder)
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(f"{value:.1f}" in printed for row in SYNTHETIC.values() for value in row)


def test_reporting_loads_without_torch_training_experiments_and_cli() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import calmctl.reporting.kv_report, calmctl.reporting.seeds, calmctl.reporting.report\n"
        "import calmctl.reporting.seeds, calmctl.reporting.evaluation_report, calmctl.reporting.kinds\n"
        "rooms = ('calmctl.training', 'calmctl.experiments', 'calmctl.cli')\n"
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
