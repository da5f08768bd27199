"""Reports of `calmctl reproduce ntl` and `code`: figures, answers, links; what is missing, damaged or hostile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib import image
from matplotlib.figure import Figure

from calmctl.errors import UserError
from calmctl.reporting.paper import paper_table
from calmctl.reporting.section_headline import compare, headline
from calmctl.reporting.section_plots import gains_plot
from calmctl.reporting.section_report import write_section_report
from calmctl.reporting.section_results import load_section_results
from calmctl.reporting.section_samples import section_samples
from calmctl.reporting.sections import CODE, FLORES_BITS, FLORES_CHRF, NTL, PAPER_FLORES, paper_figure
from calmctl.reporting.spread import Spread
from data_builders.benchmarks.languages import LANGUAGES
from tests.kv_folder import write, write_lines
from tests.section_folder import NAMES, SYSTEMS, change, leave_plots_out, write_section
from tests.test_reporting import HOSTILE, markdown, page


def written(folder: Path, section: str) -> Path:
    """Write a report whose plots are laid out and not drawn, which is what takes time."""
    write_section(folder, section)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, stream, **settings: stream.write(b"\x89PNG not drawn"))
        write_section_report(folder)
    return folder


@pytest.fixture(scope="module")
def ntl(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("ntl") / "run", "ntl")


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("code") / "run", "code")


@pytest.fixture
def undrawn(monkeypatch) -> None:
    leave_plots_out(monkeypatch)


@pytest.fixture
def folder(tmp_path, undrawn) -> Path:
    return write_section(tmp_path / "run", seeds=(0,))


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


# The paper


def test_the_papers_tables_agree_with_one_another():
    """Averages are those of their rows, and what stands in two tables is the same in both."""
    for name in ("table2", "table3_high", "table3_low"):
        for system, figures in paper_table(name).systems.items():
            values = [value for code, value in figures.items() if code != "avg"]
            assert len(values) == 10 and sum(values) / 10 == pytest.approx(figures["avg"], abs=0.06), (name, system)
    for system, metric in ((s, m) for s in ("calm", "m_B_finetuned") for m in ("humaneval_pass@1", "mbpp_pass@1")):
        assert paper_table("table4").figure(system, metric) == paper_table("table5").figure(system, metric)
    for system, metric in (("calm", 60.5), ("lora", 59.2), ("random_aug", 58.8)):
        assert paper_figure(system, FLORES_CHRF) == metric


def test_languages_beside_the_papers_are_languages_of_flores():
    assert PAPER_FLORES.keys() <= LANGUAGES.keys()
    assert set(PAPER_FLORES.values()) == paper_table("table2").systems["calm"].keys() - {"avg"}
    measures = {measure.paper for section in (NTL, CODE) for measure in section.measures if measure.paper}
    known = {metric for name in ("table4", "table5") for s in paper_table(name).systems.values() for metric in s}
    assert measures <= known


# Answers


@pytest.mark.parametrize("measure, ours, theirs, outcome", [
    (FLORES_CHRF, (20.0, 21.0), (15.0,), "better"),
    (FLORES_CHRF, (20.0, 21.0), (25.0,), "worse"),
    (FLORES_CHRF, (20.0, 24.0), (20.0, 21.0), "within the spread"),
    (FLORES_CHRF, (20.0, 22.0), (19.0,), "within the spread"),
    (FLORES_CHRF, (20.01,), (20.04,), "equal"),
    (FLORES_CHRF, (), (20.0,), "not run"),
    (FLORES_BITS, (1.9, 1.91), (2.0,), "better"),
    (FLORES_BITS, (2.1,), (2.0,), "worse"),
    (FLORES_BITS, (1.9, 2.1), (2.05,), "within the spread"),
])  # fmt: skip
def test_comparisons(measure, ours, theirs, outcome):
    assert compare(Spread(ours), Spread(theirs), measure).outcome == outcome


def test_headline_answers_whichever_way_it_falls(folder):
    def answers():
        return headline(load_section_results(folder))[:2]

    assert answers()[0].endswith("? Yes by FLORES-200 chrF1 and FLORES-200 bits per byte.")
    assert "(it has 0.5 percent fewer parameters)" in answers()[1]

    def worse(results):
        by_key = {system["key"]: system["runs"][0]["metrics"]["flores"] for system in results["systems"]}
        by_key["calm"] |= {"chrf1": by_key["m_A"]["chrf1"], "bits_per_byte": 2.0}

    change(folder, worse)
    assert answers()[0].endswith("? Yes by FLORES-200 bits per byte; no difference by FLORES-200 chrF1.")
    assert answers()[1].endswith("? No by FLORES-200 chrF1 and FLORES-200 bits per byte.")
    change(folder, lambda results: results["systems"].pop(4))
    assert (
        answers()[1]
        == "More than LoRA on the same data? Not measured by FLORES-200 chrF1 and FLORES-200 bits per byte."
    )


def test_headline_says_what_is_known_of_chance(ntl, folder):
    assert "seeds 0, 1, 2" in headline(load_section_results(ntl))[-1]
    assert (
        headline(load_section_results(folder))[-1] == "One seed: how much of a difference is chance was not measured."
    )


# The report of low-resource languages


def test_every_figure_stands_in_both_reports(ntl, code):
    for label, _, _, parameters, chrf, bits in SYSTEMS.values():
        for text in (markdown(ntl), page(ntl).text, markdown(code), page(code).text):
            assert label in text and f"{chrf:.1f}" in text and f"{bits:.3f}" in text and f"{parameters:,}" in text


def test_a_row_of_table_2_has_figures_links_paper_and_differences(ntl):
    assert row(markdown(ntl), "Ligurian") == (
        "| Ligurian (lij_Latn) | [16.4](eval/flores/aug) (paper 32.0, −15.6) | [12.6](eval/flores/anchor)"
        " (paper 32.6, −20.0) | [23.4 ± 0.4](eval/flores) (paper 44.1, −20.7) | [24.9](eval/flores/anchor_further)"
        " (paper 48.1, −23.2) |"
    )
    assert "paper" not in row(markdown(ntl), "Friulian")


def test_languages_stand_from_low_to_high_resource_as_the_anchor_has_it(ntl):
    results = load_section_results(ntl)
    bits = [results.group_spread("m_B", FLORES_BITS, code).mean for code in results.groups(FLORES_CHRF)]
    assert bits == sorted(bits, reverse=True) and results.groups(FLORES_CHRF) == results.groups(FLORES_BITS)
    assert results.above("calm", FLORES_BITS) == (5, 5) and results.above("m_B", FLORES_CHRF) == (0, 5)


def test_every_system_is_listed_with_its_size(ntl):
    lora = row(markdown(ntl), "[LoRA](lora) | 288,100")
    assert "| −0.5% |" in lora and "[24.5 ± 0.4](eval/flores) (paper 59.2, above m_B in 5 of 5)" in lora
    assert "| [1.951 ± 0.004](eval/flores) (below m_B in 5 of 5) |" in lora


def test_every_run_is_linked_with_seed_config_and_evaluation(ntl):
    assert row(markdown(ntl), "CALM (composed) | 2") == (
        "| CALM (composed) | 2 | [calm_seed2](calm_seed2) | [config.yaml](calm_seed2/config.yaml)"
        " | [metrics](eval/flores/calm_seed2/metrics.json) |"
    )
    links = [link for link in page(ntl).links if not link.startswith("#")]
    links += re.findall(r"\]\(([^)]+)\)", markdown(ntl))
    assert links and not [link for link in links if not (ntl / link).exists()]


def test_data_protocol_and_provenance_are_told(ntl, code):
    facts = (
        "217,869",
        "19,440,000",
        "31 rows (2 sentences exact, 29 near)",
        "sentence-pairs",
        "500, first 100 of each",
    )
    for text in (markdown(ntl), page(ntl).text):
        for fact in (*facts, "small models instead of PaLM2", "2 h 05 min", "0123abcd", "175 of 192"):
            assert fact in text
    for fact in ("| mbpp | 16 files | 0 |", "| codexglue | 0 files | not compared |", "4,180,000"):
        assert fact in markdown(code)


def test_samples_span_the_compositions_scores_over_different_languages(ntl):
    samples = section_samples(load_section_results(ntl))
    numbers = [int(sample.record.rpartition("/")[2]) for sample in samples]
    assert numbers[0] < 4 and numbers[-1] > 15 and numbers == sorted(numbers)
    assert len({sample.record.split("/")[0] for sample in samples}) == len(NAMES) + 1
    text = markdown(ntl)
    for key in ("m_A", "m_B", "calm", "m_B_finetuned"):
        assert f"`{key} says {numbers[0]}`" in text
    assert f"`reference {numbers[0]}`" in text


@pytest.mark.parametrize("count", [3, 203])
def test_gains_are_readable_for_few_and_for_all_languages(tmp_path, count):
    """Bars do not shrink with the number of languages, nor does the picture outgrow a page."""
    codes = [code for code in LANGUAGES if code != "eng_Latn"][:count]
    results = load_section_results(write_section(tmp_path, seeds=(0,), languages=codes, keys=("m_B", "calm")))
    (tmp_path / "gains.png").write_bytes(gains_plot(results, NTL.grouped[0]))
    pixels = image.imread(tmp_path / "gains.png")[..., :3]
    height, width = pixels.shape[:2]
    assert 1100 < width < 1400 and (height < 700 if count == 3 else 1000 < height < 1.5 * width)
    assert 0.02 < (pixels.min(-1) < 0.9).mean() < 0.7


# The report of code


def test_table_4_has_the_papers_figures_beside_ours(code):
    text = markdown(code)
    assert "| [0.0 ± 0.0](eval/humaneval) (paper 22.5, −22.5) |" in text.split("## Table 4: code")[1].split("## ")[0]
    assert "(paper 29.0, −3.1)" in row(text, "ruby")
    assert headline(load_section_results(code))[0].endswith("; no difference by HumanEval pass@1 and CodeXGLUE BLEU-4.")
    assert "(lower is better): composed 1.904 ± 0.004" in text


def test_functions_of_ones_own_are_not_subtracted_from_the_papers(tmp_path, undrawn):
    folder = write_section(tmp_path / "run", "code", seeds=(0,))
    made = json.loads((folder / "data/manifest.json").read_text())["files"]["aug_train.parquet"]["sha256"]
    for path in folder.glob("eval/codexglue/*/metrics.json"):
        metrics = json.loads(path.read_text())
        write(path, metrics | {"protocol": metrics["protocol"] | {"data_sha256": {"ruby/test.jsonl": made}}})
    write_section_report(folder)
    text = markdown(folder)
    assert "(paper 29.0)" in row(text, "ruby") and "(paper 22.5, −22.5)" in row(text, "[CALM")
    assert "held out of its own data" in row(text, "codexglue | codexglue |")
    assert "| 164 | humaneval | " in row(text, "humaneval | humaneval |")


# What is missing, damaged or hostile


def test_models_used_as_they_are_have_no_runs(folder):
    def edit(results):
        for system in results["systems"][:2]:
            system["runs"][0] |= {"is_trained": False, "run": "org/model", "cost": None, "trainable_parameters": None}

    change(folder, edit)
    shutil.rmtree(folder / "aug")
    write_section_report(folder)
    assert "| m_A alone | 0 | org/model | used as it is |" in markdown(folder)
    assert "| m_A alone | – |" in markdown(folder) and "(aug)" not in markdown(folder)


def test_a_figure_that_its_evaluation_does_not_confirm_is_pointed_out(folder):
    assert load_section_results(folder).disagreements() == []
    change(folder, lambda results: results["systems"][2]["runs"][0]["metrics"]["flores"].update(bits_per_byte=1.7))
    write_section_report(folder)
    for text in (markdown(folder), page(folder).text):
        assert "results.json says 1.700, eval/flores/calm/metrics.json says 1.904" in text


def test_evaluations_that_differ_in_more_than_the_model_are_pointed_out(folder):
    path = folder / "eval/flores/calm/metrics.json"
    metrics = json.loads(path.read_text())
    write(path, metrics | {"protocol": metrics["protocol"] | {"shots": 0}})
    write_section_report(folder)
    assert "flores: not comparable, as the evaluations differ in shots (5 and 0)." in page(folder).text


def test_models_that_are_asked_otherwise_stand_apart_and_answers_have_a_cost(folder):
    shutil.copytree(folder / "eval/flores/anchor", folder / "eval/flores/handover")
    for name, shots, speed in (("handover", 0, 12.5), ("calm", 5, 31.25)):
        path = folder / "eval/flores" / name / "metrics.json"
        metrics = json.loads(path.read_text())
        write(path, {**metrics, "protocol": metrics["protocol"] | {"shots": shots}, "tokens_per_second": speed})

    def edit(results):
        anchor = next(system for system in results["systems"] if system["key"] == "m_B")
        asked = {
            **anchor["runs"][0],
            "is_trained": False,
            "cost": None,
            "evaluations": {"flores": "eval/flores/handover"},
        }
        results["systems"].append({"key": "handover", "label": "m_B, given it", "group": "untrained", "runs": [asked]})

    change(folder, edit)
    write_section_report(folder)
    text = markdown(folder)
    assert "not comparable" not in text and "**Without training**" in text
    untrained = text.split("**Without training**")[1].split("**")[0]
    assert "m_B in" in row(untrained, "m_B, given it")
    path = folder / "eval/flores/handover/metrics.json"
    write(path, json.loads(path.read_text()) | {"n": 3})
    write_section_report(folder)
    untrained = markdown(folder).split("**Without training**")[1].split("**")[0]
    assert "m_B in" not in row(untrained, "m_B, given it"), "other records, which say nothing language by language"
    answering = text.split("**Cost of answering**")[1].split("**")[0]
    assert "12.5" in row(answering, "m_B, given it") and "31.2" in row(answering, "[CALM (composed)]")


def test_both_directions_of_flores_stand_side_by_side(folder):
    def add(results):
        results["tasks"].append("flores_from_english")
        for system in results["systems"]:
            for found in system["runs"]:
                place = f"eval/flores_from_english/{found['run']}"
                metrics = json.loads((folder / found["evaluations"]["flores"] / "metrics.json").read_text())
                metrics["metrics"] = {name: value + 1 for name, value in metrics["metrics"].items()}
                metrics["protocol"]["direction"] = "en-xx"
                write(folder / place / "metrics.json", metrics)
                found["evaluations"]["flores_from_english"] = place
                found["metrics"]["flores_from_english"] = metrics["metrics"]

    change(folder, add)
    write_section_report(folder)
    text = page(folder).text
    assert "not comparable" not in text and "FLORES-200 from English, bits per byte by language" in text
    assert (folder / "plots/gains_flores_from_english_bits_per_byte.png").exists()
    row = next(line for line in markdown(folder).splitlines() if line.startswith("| FLORES-200 from English bits"))
    assert row.split(" | ")[1] == "[3.115](eval/flores_from_english/aug)"


def test_hostile_texts_are_shown_not_obeyed(folder):
    def edit(results):
        results |= {"preset": HOSTILE, "deviations": [HOSTILE]}
        results["systems"][2]["label"] = HOSTILE

    change(folder, edit)
    rows = [{"id": "lij_Latn/1", "prompt": HOSTILE, "completion": HOSTILE, "reference": HOSTILE, "sentence_chrf1": 1.0}]
    write_lines(folder / "eval/flores/calm/predictions.jsonl", rows)
    write_section_report(folder)
    found = page(folder)
    assert "script" not in found.tags and found.text.count(HOSTILE) >= 6
    assert not [link for link in found.links if "evil" in link]
    assert "<script" not in re.sub(r"(`+) .*? \1", "", markdown(folder))


def test_a_cost_without_its_figures_is_damage(folder):
    change(folder, lambda results: results["systems"][2]["runs"][0]["cost"].pop("model_bytes"))
    with pytest.raises(UserError, match=r"results\.json: damaged .*no 'model_bytes'"):
        write_section_report(folder)


@pytest.mark.parametrize("name, content, message", [
    ("results.json", "{", "damaged"),
    ("results.json", "[]", "expected names and figures"),
    ("results.json", '{"section": "kv"}', "'kv' is not one of ntl, code"),
    ("results.json", '{"section": "ntl"}', "names no systems"),
    ("results.json", '{"section": "ntl", "systems": [{"key": "calm"}]}', "no 'runs'"),
    ("results.json", '{"section": "ntl", "systems": [7]}', "damaged"),
    ("eval/flores/calm/metrics.json", None, "no such file"),
    ("eval/flores/calm/metrics.json", '{"task": "flores", "metrics": {}}', "no task and figures"),
    ("data/manifest.json", "{", "damaged"),
    ("calm/run.json", None, "no run.json"),
    ("calm/train_log.jsonl", "{}\nnot json\n{}\n", "train_log.jsonl:2: is no JSON"),
])  # fmt: skip
def test_missing_and_damaged_files_are_named(folder, name, content, message):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        write_section_report(folder)
    assert name.split("/")[0] in str(error.value) and "\n" not in str(error.value)


def test_a_folder_with_little_in_it_is_reported(tmp_path, undrawn):
    folder = write_section(tmp_path / "run", keys=("calm",), seeds=(0,))
    shutil.rmtree(folder / "data")
    (folder / "run.json").unlink()
    for path in folder.glob("eval/*/*/predictions.jsonl"):
        path.unlink()
    write_section_report(folder)
    text = markdown(folder)
    for fact in (
        "Not measured by FLORES-200 chrF1",
        "no data/manifest.json",
        "composed model: not run",
        "not recorded",
    ):
        assert fact in text


# The page


def test_the_page_asks_for_nothing_and_fits_its_window(code, tmp_path):
    """No address on the page leads out, and Chromium finds nothing wider than a narrow window."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium found")
    html = (code / "report.html").read_text()
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)
    # The page itself has no script; this copy reports what it measured in its title.
    script = "document.title = [innerWidth, document.documentElement.scrollWidth, document.images.length].join(' ')"
    (tmp_path / "measured.html").write_text(html.replace("</body>", f"<script>{script}</script></body>"))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [browser, *flags.split(), "--disable-component-update", "--disable-sync", "--window-size=500,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "measured.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    window, content, images = map(int, re.findall(r"<title>(\d+) (\d+) (\d+)</title>", done.stdout)[0])
    assert content <= window <= 500 and images == 7
