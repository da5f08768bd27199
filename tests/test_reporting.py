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
from typing import Any

import numpy
import pytest
from matplotlib import image

from calmctl.cli.report import report
from calmctl.errors import UserError
from calmctl.reporting.kv_report import (
    command_line,
    headline,
    load_kv_results,
    terminal_table,
    write_kv_report,
)
from calmctl.reporting.kv_results import CALM, CONTROLS, KV_MATH, METRICS, TRAINING_RUNS
from calmctl.reporting.kv_samples import kv_samples
from calmctl.reporting.paper import TABLE_1, paper_table
from calmctl.reporting.plots import wilson_interval
from calmctl.reporting.seeds import aggregate_seeds, write_seed_summary
from calmctl.reporting.tables import (
    Column,
    Number,
    Table,
    Text,
    md_code,
    md_text,
    signed,
    to_html,
    to_markdown,
)

HOSTILE = "<script>alert('x')</script> | `code` [link](http://evil) **bold**"

# Made-up figures, each of them only once, so that finding one in a report says where it came from.
SYNTHETIC = {
    "m_A": (97.31, 1.17, 0.42, 0.23),
    "m_B": (0.13, 91.62, 0.31, 0.57),
    "calm": (95.74, 90.93, 86.68, 4.36),
    "random_aug": (0.91, 89.27, 0.08, 0.64),
    "dc_subs": (94.46, 83.83, 61.25, 2.71),
    "dc_math": (0.72, 88.14, 1.59, 7.48),
}
RUNS = {"m_A": "aug", "m_B": "anchor", "calm": "calm", "random_aug": "calm_random_aug"} | {
    key: f"calm_{key}" for key in ("dc_subs", "dc_math")
}
REQUESTS = {
    "substitute": ("kv_subs", "kv_math"),
    "solve_numbers": ("num_math",),
    "solve_keys": ("kv_math_direct",),
}


def accuracies(values: tuple[float, ...], change: float = 0.0) -> dict[str, float]:
    names = (metric.key for metric in METRICS)
    return {
        name: round(min(max(value + change, 0), 100), 2) for name, value in zip(names, values, strict=True)
    }


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def training_log(name: str) -> list[dict[str, Any]]:
    rows = []
    for index in range(1, 61):
        share = index / 60
        row = {"step": 25 * index, "loss": 2.9 * 0.02**share, "learning_rate": 0.01, "tokens_per_second": 4e4}
        row |= {"seconds": 2.0 * index, "exact_match": round(share**0.5 * 0.97, 4)}
        rows.append(row | ({"num_operands": min(6, 2 + index // 8)} if name == "anchor" else {}))
    return rows


def predictions(system: str) -> list[dict[str, Any]]:
    rows = []
    for number in range(12):
        for request, metrics in REQUESTS.items():
            right = (system == "calm" and number % 3 != 0) or (system == "m_B" and request == "solve_numbers")
            prompt = "substitute: abc + de - fgh =" if request == "substitute" else f"solve: {request} ="
            rows.append(
                {
                    "id": f"test-{number:03d}/{request}",
                    "prompt": prompt,
                    "completion": " 12 + 07 - 33 = -014" if right else f" {system} guess = {number}",
                    "reference": " 12 + 07 - 33 = -014",
                    "correct": right,
                    "metrics": dict.fromkeys(metrics, right),
                    "num_operands": 3 + number % 4,
                    "stratum": "held_out" if number < 10 else "held_in",
                }
            )
    return rows


def write_evaluation(folder: Path, system: str, values: tuple[float, ...]) -> None:
    slices = {str(count): {"n": 125, **accuracies(values, 3.0 * (4.5 - count))} for count in range(3, 7)}
    strata = {
        name: {"n": 500, **accuracies(values, change)}
        for name, change in (("held_out", 0.0), ("mixed", 0.7), ("held_in", 1.9))
    }
    metrics = {
        "task": "kv",
        "metrics": accuracies(values),
        "n": 500,
        "breakdown": {"by_num_operands": slices, "by_stratum": strata, "by_num_held_in": {}},
        "protocol": {"format": "kv-1", "decoding": "greedy", "shots": 0},
        "seconds": 12.5,
    }
    write(folder / "eval" / RUNS[system] / "metrics.json", metrics)
    write_lines(folder / "eval" / RUNS[system] / "predictions.jsonl", predictions(system))


def write_folder(folder: Path, seed: int = 7, change: float = 0.0) -> Path:
    """Write a folder like that of `calmctl reproduce kv`, with `change` points on every figure."""
    values = {key: tuple(accuracies(row, change).values()) for key, row in SYNTHETIC.items()}
    facts = {
        "kind": "reproduce",
        "status": "complete",
        "command": ["/somewhere/bin/calmctl", "reproduce", "kv", "--out", "my runs/kv"],
        "versions": {"python": "3.11.7", "torch": "2.13.0", "missing": None},
        "started": "2030-01-01T00:00:00+00:00",
    }
    table = {key: accuracies(row) for key, row in values.items()}
    table |= {"dc_mix": table["calm"], "paper": TABLE_1, "seed": seed, "preset": "synthetic"}  # type: ignore[dict-item]
    table |= {"deviations": ["4,321 keys instead of 25,000", "keys share values"], "git_commit": "0123abcd"}  # type: ignore[dict-item]
    table |= {"hardware": {"cpu": "Test CPU", "cpu_cores": 3, "memory_bytes": 5 * 2**30, "gpus": []}}  # type: ignore[dict-item]
    table |= {"seconds": {"data": 1.5, "anchor": 333.0, "total": 7530.0}}
    write(folder / "run.json", facts)
    write(folder / "table1.json", table)
    for system, row in values.items():
        write_evaluation(folder, system, row)
    for name in TRAINING_RUNS:
        ended = {"trainable_parameters": 123_456, "seconds": 333.0, "peak_memory_bytes": 2**30}
        write(folder / name / "run.json", {"kind": "train", "status": "complete", "name": name, **ended})
        if name != "aug_random":  # it has no steps, so no log
            write_lines(folder / name / "train_log.jsonl", training_log(name))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("reports") / "kv")
    write_kv_report(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
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
        "| [CALM (composed)](eval/calm) | [95.7](eval/calm) (paper 92.9, +2.8) | [90.9](eval/calm) (paper 72.0, +18.9)"
        " | [86.7](eval/calm) (paper 84.3, +2.4) | [4.4](eval/calm) |"
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
        assert pixels.shape[1] > 1000
        assert 0.005 < inked < 0.6, path.name
        assert len(numpy.unique(pixels.reshape(-1, 3), axis=0)) > 20, path.name
    assert not list((written / "plots").glob(".*")), "temporary files are left behind"


def test_writing_again_gives_the_same_files(folder: Path) -> None:
    before = {path: path.read_bytes() for path in write_kv_report(folder)}
    assert {path: path.read_bytes() for path in write_kv_report(folder)} == before


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


def test_a_folder_with_nothing_but_its_table_is_reported(tmp_path: Path) -> None:
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
    columns = {
        line.count("|") - line.count("\\|") for line in found_rows(markdown(folder), "KV-MATH, direct")
    }
    assert columns == {7}


def found_rows(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {start}")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table1.json", "{", "damaged"),
        ("table1.json", "[]", "expected names and figures"),
        ("table1.json", "{}", "names none of m_A"),
        ("eval/calm/metrics.json", '{"metrics": 3}', "expected names and figures"),
        ("calm/train_log.jsonl", "{}\nnot json\n{}\n", "line 2"),
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


# Samples


def test_samples_are_held_out_first_right_then_wrong(folder: Path) -> None:
    samples = kv_samples(folder)
    assert [sample.record for sample in samples] == [
        "test-004",
        "test-001",
        "test-002",
        "test-000",
        "test-003",
    ]
    verdicts = [sample.rows["calm"]["substitute"]["correct"] for sample in samples]
    assert verdicts == [True, True, True, False, False]
    assert all(int(sample.record[-3:]) < 10 for sample in samples)
    cells = samples[0].table().rows[0]
    assert [cell.text for cell in cells if isinstance(cell, Text)][-2:] == ["12 + 07 - 33 = -014"] * 2
    assert [cell.aside() for cell in cells] == ["", "", "wrong", "wrong", "right", ""]


# Tables


def test_numbers_show_difference_spread_and_absence() -> None:
    assert (Number(86.68, paper=84.3).main(), Number(86.68, paper=84.3).aside()) == (
        "86.7",
        "paper 84.3, +2.4",
    )
    assert Number(84.0, paper=84.3, spread=0.55).main() == "84.0 ± 0.6"
    assert Number(84.0, paper=84.3).aside() == "paper 84.3, −0.3"
    assert (Number(None, paper=84.3).main(), Number(None, paper=84.3).aside()) == ("not run", "paper 84.3")
    assert [signed(value) for value in (0.04, -0.04, 1.0, -1.0)] == ["±0.0", "±0.0", "+1.0", "−1.0"]


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table("t", (Column("a"), Column("b")), ((Text("x"),),))


def test_markdown_and_html_escape_cells() -> None:
    table = Table("", (Column("a|b"),), ((Text(HOSTILE, is_code=True),), (Text("<b>m_A</b> _x_"),)))
    assert to_markdown(table).splitlines()[0] == "| a\\|b |"
    assert "&lt;b>m_A&lt;/b> \\_x\\_" in to_markdown(table)
    assert "<script" not in to_html(table)
    assert md_code("a`b``c") == "``` a`b``c ```"
    assert md_code("  ") == "(empty)"
    assert md_text("# no\nheading") == "\\# no heading"


def test_wilson_interval_holds_the_value_and_narrows() -> None:
    for value in (0.0, 37.0, 100.0):
        (low, high), (lower, higher) = wilson_interval(value, 1000), wilson_interval(value, 10)
        assert 0 <= lower <= low <= value <= high <= higher <= 100
    assert wilson_interval(50.0, 100) == pytest.approx((40.38, 59.62), abs=0.01)
    assert wilson_interval(50.0, None) == (50.0, 50.0)


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


# Seeds


def test_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    folders = [
        write_folder(tmp_path / str(seed), seed, change) for seed, change in enumerate((-1.0, 0.0, 2.5))
    ]
    for path in (folders[2] / "eval" / "calm_dc_math", folders[2] / "calm_dc_math"):
        shutil.rmtree(path)
    table = json.loads((folders[2] / "table1.json").read_text())
    del table["dc_math"]
    write(folders[2] / "table1.json", table)

    summary = aggregate_seeds(folders)
    spread = summary.spread(CALM, KV_MATH)
    assert spread.values == (85.68, 86.68, 89.18)
    assert spread.mean == pytest.approx(numpy.mean(spread.values))
    assert spread.std == pytest.approx(numpy.std(spread.values, ddof=1))
    text = to_markdown(summary.table())
    assert "87.2 ± 1.8 (paper 84.3, +2.9)" in text
    assert "2 of 3 seeds" in text
    assert "seeds 0, 1, 2" in text

    paths = write_seed_summary(summary, tmp_path / "out")
    assert [path.name for path in paths] == ["seeds.md", "seeds.json"]
    found = json.loads(paths[1].read_text())
    assert found["systems"]["calm"]["kv_math"]["values"] == [85.68, 86.68, 89.18]
    assert found["systems"]["calm"]["kv_math"]["paper"] == 84.3
    assert len(found["systems"]["dc_math"]["kv_math"]["values"]) == 2


def test_one_seed_has_no_deviation(folder: Path) -> None:
    spread = aggregate_seeds([folder]).spread(CALM, KV_MATH)
    assert (spread.mean, spread.std) == (86.68, None)


def test_seeds_of_different_presets_and_twice_the_same_seed_are_refused(tmp_path: Path) -> None:
    first, second = (write_folder(tmp_path / name) for name in "ab")
    with pytest.raises(UserError, match="both of seed 7"):
        aggregate_seeds([first, second])
    table = json.loads((second / "table1.json").read_text())
    write(second / "table1.json", table | {"preset": "other", "seed": 8})
    with pytest.raises(UserError, match="other, synthetic"):
        aggregate_seeds([first, second])
    with pytest.raises(UserError, match="no folder"):
        aggregate_seeds([])


# The command


def test_report_of_one_folder_prints_its_table(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report([written])
    printed = capsys.readouterr()
    assert "86.7 percent, paper 84.3" in printed.out
    assert "CALM (composed)" in printed.out
    assert "wrote" in printed.err
    report([written], json=True)
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
        "import calmctl.reporting.kv_report, calmctl.reporting.seeds\n"
        "print([n for n in sys.modules if n.startswith(('calmctl.training', 'calmctl.experiments', 'calmctl.cli'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
