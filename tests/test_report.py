"""Reports of every experiment: figures, links, how it was made; each experiment's own tables."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calmctl.reporting.provenance import command_line
from calmctl.reporting.report import report_document, write_report
from calmctl.reporting.results_file import load_results
from tests.report_figures import ABLATIONS, KV, REAL_TEXT
from tests.report_folder import Page, change, markdown, of, read, report_of, row, write, write_folder

EXPERIMENTS = ("kv", "ntl", "code")
PUBLISHED = Path(__file__).parents[1] / "docs" / "results"
Reported = dict[str, Path]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_figure_stands_in_both_reports(reported: Reported, name: str) -> None:
    results = load_results(reported[name])
    for key, made in ({**KV, **ABLATIONS} if name == "kv" else REAL_TEXT).items():
        shown = [f"{value:.1f}" for value in made.figures]
        if name != "kv":
            shown = [f"{made.figures[0]:.1f}", f"{made.figures[1]:.3f}"]
        for text in (markdown(reported[name]), Page(reported[name]).text):
            assert not [part for part in (*shown, results.label(key), f"{made.parameters:,}") if part not in text], key


def test_a_share_of_the_keys_has_a_test_set_of_its_own_without_a_warning(reported: Reported) -> None:
    assert "50% of the keys" in markdown(reported["kv"]) and "not comparable" not in markdown(reported["kv"])
    assert "held out of its own data" in markdown(reported["kv"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_link_and_picture_exists(reported: Reported, name: str) -> None:
    links = {link for link in Page(reported[name]).links if not link.startswith("#")}
    links |= set(re.findall(r"\]\(([^)]+)\)", markdown(reported[name])))
    assert {"calm", "anchor", "plots/systems.png", "plots/training_m_B.png"} <= links
    assert not [link for link in links if not (reported[name] / link).exists()]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_page_is_self_contained(reported: Reported, name: str) -> None:
    page = Page(reported[name])
    assert not {"script", "link", "iframe"} & set(page.tags) and page.images
    for head, _, data in (source.partition(",") for source in page.images):
        assert head == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG")
    assert "prefers-color-scheme: dark" in page.html and "width=device-width" in page.html
    assert "http" not in re.sub(r"base64,[^\"]*", "", page.html)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_report_says_how_it_was_made(reported: Reported, name: str) -> None:
    facts = (
        f"calmctl reproduce {name} --out 'my runs/x'", "0123abcd", "Test CPU", "5.0 GiB", "torch 2.13.0", "2 h 05 min",
        "5 min 33 s", "small models instead of PaLM2", "4,321 keys instead of 25,000",
        f"preset tiny, seed {7 if name == 'kv' else 0}",
    )  # fmt: skip
    for text in (markdown(reported[name]), Page(reported[name]).text):
        assert not [fact for fact in facts if fact not in text]
        assert "/somewhere" not in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_writing_again_gives_the_same_files(tmp_path: Path, undrawn: None, name: str) -> None:
    folder = write_folder(tmp_path, name)
    before = {path: path.read_bytes() for path in write_report(folder)}
    assert {path: path.read_bytes() for path in write_report(folder)} == before


@pytest.mark.parametrize("command, shown", [
    (["/x/bin/calmctl", "a b"], "calmctl 'a b'"),
    (["/x/calmctl/__main__.py", "ls"], "calmctl ls"),
    ([], "not recorded"),
    (None, "not recorded"),
])  # fmt: skip
def test_command_line(command: object, shown: str) -> None:
    assert command_line(command) == shown


@pytest.mark.parametrize("name", sorted(path.parent.name for path in PUBLISHED.glob("*/config.yaml")))
def test_published_results_can_be_reported(undrawn: None, name: str) -> None:
    document = report_document(load_results(PUBLISHED / name))
    assert len(document.sections) >= 9 and "not run" not in document.headline[0]


# Key-value arithmetic


def test_table_1_has_figures_links_paper_and_differences_in_order(reported: Reported) -> None:
    table = markdown(reported["kv"]).split("## Table 1")[1].split("## ")[0]
    assert row(table, "[CALM](calm)") == (
        "| [CALM](calm) | [95.7](eval/kv/calm) (paper 92.9, +2.8) | [90.9](eval/kv/calm) (paper 72.0, +18.9)"
        " | [86.7](eval/kv/calm) (paper 84.3, +2.4) | [4.4](eval/kv/calm) |"
    )
    assert [line.split("]")[0] for line in table.splitlines() if line.startswith("| [")] == [
        "| [m_A alone", "| [m_B alone", "| [CALM",
    ]  # fmt: skip


def test_every_ablation_stands_in_its_group_with_its_size_and_its_cost(reported: Reported) -> None:
    text, html = markdown(reported["kv"]), Page(reported["kv"]).html
    for heading in (
        "CALM, by what m_A is", "CALM, by what D_C holds", "CALM, by share of keys in D_C (its own: 20%)",
        "CALM, by connections (its own: every layer)", "CALM, by attention heads (its own: 2 heads)",
        "Other methods, on the same D_C",
    ):  # fmt: skip
        assert f"| **{heading}** |" in text and f'<th class="heading" colspan="7">{heading}</th>' in html
    cost = text.split("**Cost of training**")[1]
    for system in load_results(reported["kv"]).systems:
        run = system.runs[0]
        line = row(text, f"[{system.label}]({run.run}) | {run.trainable_parameters:,} |")
        assert all(f"[{value:.1f}](eval/kv/{run.run})" in line for value in run.metrics["kv"].values())
        assert f"| [{system.label}]({run.run}) | train | " in cost
    assert "| [LoRA](lora) | 123,457 | ±0.0% |" in text and "| [every 2 layers](every_2) | 61,728 | −50.0% |" in text
    assert text.index("[5% of the keys]") < text.index("[50% of the keys]")


def test_figures_by_number_of_operands_and_by_keys_are_those_of_the_evaluations(reported: Reported) -> None:
    text = markdown(reported["kv"])
    for title, dimension, names in (
        ("Accuracy by number of operands", "by_num_operands", {str(count): str(count) for count in range(3, 7)}),
        ("Held-in and held-out keys", "by_stratum", {"held_in": "all held in", "held_out": "all held out"}),
    ):
        table = text.split(f"## {title}")[1].split("\n## ")[0]
        assert f"plots/{dimension}.png" in table and "LoRA" not in table  # which the plot has no room for
        composed = table.split("**CALM**")[1].split("**")[0]
        found = read(reported["kv"] / "eval/kv/calm/metrics.json")["breakdown"][dimension]
        for group, name in names.items():
            line = row(composed, f"{name} | {found[group]['n']:,}")
            assert f" {found[group]['kv_math']:.1f} |" in line and f" {found[group]['kv_subs']:.1f} |" in line


def test_whose_keys_are_told_where_there_are_two_augs(tmp_path: Path, undrawn: None) -> None:
    folder = write_folder(tmp_path, "kv")
    assert "## Whose keys" not in report_of(folder)
    path = folder / "eval/kv/calm/metrics.json"
    metrics = read(path)
    metrics["breakdown"]["by_augs"] = {
        "1+2": {"n": 24, "kv_math": 33.3}, "1": {"n": 24, "kv_math": 55.5}, "2": {"n": 24, "kv_math": 44.4},
    }  # fmt: skip
    write(path, metrics)
    lines = report_of(folder).split("## Whose keys")[1].splitlines()[5:8]
    assert [line.split(" | ")[0] for line in lines] == ["| of m_A 1 alone", "| of m_A 2 alone", "| of both m_As"]
    assert ["55.5" in lines[0], "44.4" in lines[1], "33.3" in lines[2]] == [True] * 3


# Low-resource languages


def test_a_row_of_table_2_has_figures_links_paper_and_differences(reported: Reported) -> None:
    text = markdown(reported["ntl"])
    assert row(text, "Ligurian") == (
        "| Ligurian (lij_Latn) | [16.4](eval/flores/aug) (paper 32.0, −15.6) | [12.6](eval/flores/anchor)"
        " (paper 32.6, −20.0) | [23.4 ± 0.4](eval/flores) (paper 44.1, −20.7) | [24.9](eval/flores/m_B_finetuned)"
        " (paper 48.1, −23.2) | [19.5 ± 0.4](eval/flores) |"
    )
    assert "paper" not in row(text, "Friulian")


def test_a_part_of_the_records_has_no_difference_to_the_paper(folder: Path) -> None:
    for path in (folder / "eval" / "flores").rglob("metrics.json"):
        found = read(path)
        write(path, found | {"data": {**found.get("data", {}), "limit": 200}})
    text = report_of(folder)
    assert "(paper 32.0)" in row(text, "Ligurian") and ", first 200 of each" in text


def test_every_system_is_listed_with_its_size(reported: Reported) -> None:
    lora = row(markdown(reported["ntl"]), "[LoRA](lora) | 288,100")
    assert "| −0.5% |" in lora and "[24.5 ± 0.4](eval/flores) (paper 59.2, above m_B in 5 of 5)" in lora
    assert "| [1.951 ± 0.004](eval/flores) (below m_B in 5 of 5) |" in lora


def test_every_run_is_linked_with_seed_config_and_evaluation(reported: Reported) -> None:
    assert row(markdown(reported["ntl"]), "CALM | 2") == (
        "| CALM | 2 | [calm_seed2](calm_seed2) | [config.yaml](calm_seed2/config.yaml)"
        " | [metrics](eval/flores/calm_seed2/metrics.json) |"
    )


def test_data_and_protocol_are_told(reported: Reported) -> None:
    facts = ("217,869", "19,440,000", "31 rows (2 sentences exact, 29 near)", "flores-format", "175 of 192")
    for text in (markdown(reported["ntl"]), Page(reported["ntl"]).text):
        assert not [fact for fact in facts if fact not in text]
    for fact in ("| mbpp | 16 files | 0 |", "| codexglue | 0 files | not compared |", "4,180,000"):
        assert fact in markdown(reported["code"])
    assert "217,869" in markdown(reported["kv"]) and "| kv | kv-format | 0 | greedy | 500 |" in markdown(reported["kv"])


def test_both_directions_of_flores_stand_side_by_side(folder: Path) -> None:
    def add(results: dict) -> None:
        results["tasks"].append("flores_from_english")
        for system in results["systems"]:
            for found in system["runs"]:
                place = f"eval/flores_from_english/{found['run']}"
                metrics = read(folder / found["evaluations"]["flores"] / "metrics.json")
                metrics["metrics"] = {name: value + 1 for name, value in metrics["metrics"].items()}
                metrics["protocol"] |= {"direction": "en-xx", "read_in": f"a way of {found['run']}"}
                write(folder / place / "metrics.json", metrics)
                found["evaluations"]["flores_from_english"] = place
                found["metrics"]["flores_from_english"] = metrics["metrics"]

    change(folder, add)
    line = row(report_of(folder), "FLORES-200 from English bits")
    text = Page(folder).text
    assert "not comparable" not in text and "FLORES-200 from English, bits per byte by language" in text
    assert (folder / "plots/gains_flores_from_english_bits_per_byte.png").exists()
    assert line.split(" | ")[1] == "[3.115](eval/flores_from_english/aug)"


def test_models_that_are_asked_otherwise_stand_apart_and_answers_have_a_cost(folder: Path) -> None:
    shutil.copytree(folder / "eval/flores/anchor", folder / "eval/flores/handover")
    for name, shots, speed in (("handover", 0, 12.5), ("calm", 5, 31.25)):
        path = folder / "eval/flores" / name / "metrics.json"
        metrics = read(path)
        write(path, {**metrics, "protocol": metrics["protocol"] | {"shots": shots}, "tokens_per_second": speed})

    def edit(results: dict) -> None:
        asked = of(results, "m_B")["runs"][0] | {"is_trained": False, "cost": None}
        asked["evaluations"] = {"flores": "eval/flores/handover"}
        results["systems"].append({"key": "handover", "label": "m_B, given it", "group": "untrained", "runs": [asked]})

    def untrained() -> str:
        return report_of(folder).split("**Without training**")[1].split("**")[0]

    change(folder, edit)
    assert "m_B in" in row(untrained(), "m_B, given it") and "not comparable" not in markdown(folder)
    path = folder / "eval/flores/handover/metrics.json"
    write(path, read(path) | {"n": 3})
    assert "m_B in" not in row(untrained(), "m_B, given it"), "other records, which say nothing language by language"
    answering = markdown(folder).split("**Cost of answering**")[1].split("**")[0]
    assert "12.5" in row(answering, "m_B, given it") and "31.2" in row(answering, "[CALM]")


# Code


def test_table_4_has_the_papers_figures_beside_ours(reported: Reported) -> None:
    text = markdown(reported["code"])
    assert "| [0.0 ± 0.0](eval/humaneval) (paper 22.5, −22.5) |" in text.split("## Table 4: code")[1].split("## ")[0]
    assert "(paper 29.0, −3.1)" in row(text, "ruby") and "(lower is better): composed 1.904 ± 0.004" in text


def test_functions_of_ones_own_are_not_subtracted_from_the_papers(tmp_path: Path, undrawn: None) -> None:
    folder = write_folder(tmp_path, "code")
    made = read(folder / "data/manifest.json")["files"]["aug_train.parquet"]["sha256"]
    for path in folder.glob("eval/codexglue/*/metrics.json"):
        metrics = read(path)
        write(path, metrics | {"protocol": metrics["protocol"] | {"data_sha256": {"ruby/test.jsonl": made}}})
    text = report_of(folder)
    assert "(paper 29.0)" in row(text, "ruby") and "(paper 22.5, −22.5)" in row(text, "[CALM")
    assert "held out of its own data" in row(text, "codexglue | codexglue-format |")
    assert "| 164 | humaneval | " in row(text, "humaneval | humaneval-format |")


# The page, and what making it takes


def test_the_page_fits_a_narrow_window(reported: Reported, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium found")
    page = Page(reported["code"])
    # The page itself has no script; this copy reports what it measured in its title.
    script = "document.title = [innerWidth, document.documentElement.scrollWidth, document.images.length].join(' ')"
    (tmp_path / "measured.html").write_text(page.html.replace("</body>", f"<script>{script}</script></body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [browser, *flags.split(), "--disable-component-update", "--disable-sync", "--window-size=500,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "measured.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    window, content, images = map(int, re.findall(r"<title>(\d+) (\d+) (\d+)</title>", done.stdout)[0])
    assert content <= window <= 500 and images == len(page.images)


def test_reporting_loads_without_torch_training_experiments_and_cli() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "import calmctl.reporting.report, calmctl.reporting.seeds, calmctl.reporting.kv_tables\n"
        "import calmctl.reporting.evaluation_report, calmctl.reporting.kinds\n"
        "rooms = ('calmctl.training', 'calmctl.experiments', 'calmctl.cli')\n"
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
