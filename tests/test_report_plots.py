"""Plots: drawn for what there is, not blank, the same again, readable for few and many, and colours by one table."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from matplotlib import image
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy import ndarray

from calmctl.reporting import report
from calmctl.reporting.layouts import KV, KV_MATH, NTL
from calmctl.reporting.plots import systems
from calmctl.reporting.plots.breakdowns import breakdown_plot, wilson_interval
from calmctl.reporting.plots.scaling import scaling_plot
from calmctl.reporting.plots.style import colour_of
from calmctl.reporting.plots.systems import gains_plot, systems_plot
from calmctl.reporting.results import Results
from calmctl.reporting.results_file import load_results
from calmctl.reporting.systems_table import GROUPS, SYSTEMS, VARIANTS
from data_builders.benchmarks.languages import LANGUAGES
from tests.report_figures import ABLATIONS
from tests.report_folder import write_folder


def pixels(png: bytes) -> ndarray:
    return image.imread(BytesIO(png))[..., :3]


def is_drawn(png: bytes) -> bool:
    """Tell whether there is something on a picture, and not all over it."""
    found = pixels(png)
    return 0.005 < (found.min(-1) < 0.9).mean() < 0.6 and found.std() > 0.05


@pytest.fixture(scope="module")
def kv(reported: dict[str, Path]) -> Results:
    return load_results(reported["kv"])


DRAWINGS = {
    "by_num_operands": lambda results: breakdown_plot(results, KV.breakdowns[0]),
    "by_stratum": lambda results: breakdown_plot(results, KV.breakdowns[1]),
    "scaling": lambda results: scaling_plot(results, KV_MATH),
    "systems": lambda results: systems_plot(results, KV.primary),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_plots_of_key_values_are_drawn_and_not_blank(kv: Results, name: str) -> None:
    png = DRAWINGS[name](kv)
    assert pixels(png).shape[1] > 900 and is_drawn(png)


def test_a_report_draws_every_plot_it_shows_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Every run with a log has its curves, and drawing again gives the same."""
    folder = write_folder(tmp_path, "kv", keys=("m_B", "calm"))
    (folder / "calm/train_log.jsonl").unlink()
    report.write_report(folder)
    found = {path.stem: path.read_bytes() for path in (folder / "plots").iterdir()}
    assert found.keys() == {"systems", "by_num_operands", "by_stratum", "training_m_B"}
    assert all(map(is_drawn, found.values())) and not list((folder / "plots").glob(".*"))
    assert systems_plot(load_results(folder), KV.drawn) == found["systems"]


@pytest.mark.parametrize("count", range(1, 8))
def test_titles_of_measures_stand_apart_and_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(systems, "to_png", lambda figure: figures.append(figure) or b"")
    results = load_results(write_folder(tmp_path, keys=("m_A", "m_B", "calm")))
    systems_plot(results, [max(NTL.primary, key=lambda measure: len(measure.label))] * count)
    (figure,) = figures
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    boxes = [axes.get_tightbbox(for_layout_only=False) for axes in panels]
    assert len(panels) == count
    for index, box in enumerate(boxes):
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 + 1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


@pytest.mark.parametrize("count", [3, 203])
def test_gains_are_readable_for_few_and_for_all_languages(tmp_path: Path, count: int) -> None:
    """Bars do not shrink with the number of languages, nor does the picture outgrow a page."""
    codes = [code for code in LANGUAGES if code != "eng_Latn"][:count]
    results = load_results(write_folder(tmp_path, languages=codes, keys=("m_B", "calm")))
    found = pixels(gains_plot(results, NTL.grouped[0]))
    height, width = found.shape[:2]
    assert 1100 < width < 1400 and (height < 700 if count == 3 else 1000 < height < 1.5 * width)
    assert 0.02 < (found.min(-1) < 0.9).mean() < 0.7


def test_every_system_of_a_report_has_a_colour_and_a_group() -> None:
    for key in (*SYSTEMS, *ABLATIONS):
        assert len(to_rgb(colour_of(key))) == 3
    assert {row.group for row in (*SYSTEMS.values(), *VARIANTS.values())} <= GROUPS.keys()
    shown = [SYSTEMS[key] for key in ("m_A", "m_B", "calm", "random_aug", "lora", "m_B_finetuned")]
    assert len({row.colour for row in shown}) == len(shown)
    methods = [row.marker for row in SYSTEMS.values() if row.group == "methods"]
    assert len(set(methods)) == len(methods)  # matched to one size, they stand above one another


def test_wilson_interval_holds_the_value_and_narrows() -> None:
    for value in (0.0, 37.0, 100.0):
        (low, high), (lower, higher) = wilson_interval(value, 1000), wilson_interval(value, 10)
        assert 0 <= lower <= low <= value <= high <= higher <= 100
    assert wilson_interval(50.0, 100) == pytest.approx((40.38, 59.62), abs=0.01)
    assert wilson_interval(50.0, None) == (50.0, 50.0)
