"""The report of a `calmctl reproduce` folder: headline, tables, plots, samples, provenance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from calmctl.escaping import visible
from calmctl.reporting.answering_costs import answering_costs, training_costs
from calmctl.reporting.data_facts import files_table, overlap_table
from calmctl.reporting.document.page import (
    Block,
    Bullets,
    Document,
    Gallery,
    Paragraph,
    Picture,
    Section,
    write_document,
)
from calmctl.reporting.document.tables import NOT_RUN
from calmctl.reporting.document.terminal import print_tables
from calmctl.reporting.evaluations import not_comparable
from calmctl.reporting.headline import answers_tables, headline
from calmctl.reporting.kv_tables import TABLE_1_FILE, TABLE_5_FILE
from calmctl.reporting.plots.breakdowns import breakdown_plot
from calmctl.reporting.plots.scaling import scaling_plot
from calmctl.reporting.plots.systems import gains_plot, systems_plot
from calmctl.reporting.plots.training import BITS_FIELD, training_plot, validation_plot
from calmctl.reporting.provenance import UNKNOWN, reproduce_facts, seconds_table
from calmctl.reporting.result_tables import (
    breakdown_table,
    grouped_table,
    leading_tables,
    models_table,
    protocols_table,
    runs_table,
    systems_tables,
)
from calmctl.reporting.results import RESULTS_FILE, Results
from calmctl.reporting.results_file import load_results
from calmctl.reporting.samples import choose_samples, labels
from calmctl.reporting.sets_table import seen_sets, sets_tables
from calmctl.reporting.systems_table import CALM, SIZE_GROUPS
from calmctl.reporting.trainings import read_training, training_table
from calmctl.runs.record import RUN_FILE
from data_builders.values import read_json

MOST_PRINTED = 24
"""Longer tables are not printed in the terminal; in the report they come after their plot."""


def write_report(folder: Path) -> list[Path]:
    """Write `plots/*.png`, `report.md` and `report.html` into a reproduce folder and return their paths.

    Raises:
        UserError: `folder` was not written by `calmctl reproduce`, or one of its files is missing or damaged.
    """
    folder = Path(folder)
    return write_document(report_document(load_results(folder)), folder)


def terminal_tables(folder: Path) -> None:
    """Print the headline, the comparison with m_A, m_B and LoRA, and the tables that are short enough."""
    results = load_results(Path(folder))
    print(visible("\n".join(headline(results))), end="\n\n")
    grouped = (grouped_table(results, each) for each in results.layout.grouped)
    short = [table for table in grouped if table and len(table.rows) <= MOST_PRINTED]
    print_tables(*leading_tables(results), *short, *systems_tables(results))


def measured(folder: Path) -> dict[str, Any]:
    """Return the results as JSON: `results.json`, the headline, and the tables exported beside it."""
    folder = Path(folder)
    told = list(headline(load_results(folder)))
    names = (RESULTS_FILE, TABLE_1_FILE, f"ablations/{TABLE_5_FILE}", TABLE_5_FILE)
    paths = {path.stem: path for name in names if (path := folder / name).exists()}
    found = {name: read_json(path) for name, path in paths.items()}
    return {**found.pop("results", {}), **found.pop("table1", {}), **found, "headline": told}


def report_document(results: Results) -> Document:
    """Return the report as a document; draws the plots."""
    sections = (
        Section("What came out", _answer_blocks(results)),
        *_paper_sections(results),
        Section("Every system", _systems_blocks(results)),
        *_breakdown_sections(results),
        Section("Training runs", _training_blocks(results)),
        Section("Sample predictions", _sample_blocks(results)),
        Section("Data", _data_blocks(results)),
        Section("Runs and protocols", _run_blocks(results)),
        Section("Deviations from the paper", (_deviations(results),)),
        Section("Time per stage", (_seconds_block(results),)),
        Section("How to reproduce", (_how_to_reproduce(results),)),
    )
    seed = UNKNOWN if results.seed is None else results.seed
    title = f"{results.layout.title}: preset {results.preset}, seed {seed}"
    return Document(title, headline(results), sections)


def _answer_blocks(results: Results) -> tuple[Block, ...]:
    texts = [*not_comparable(results.comparable_evaluations()).values(), *results.disagreements()]
    if seen := seen_sets(results):
        texts.insert(0, f"The models were trained on test questions of {', '.join(seen)} (data.overlaps=keep).")
    if results.run is not None and results.run.status in ("failed", "interrupted"):
        texts.insert(0, f"This run is {results.run.status}: it may be incomplete.")
    return (*(Paragraph(text, is_warning=True) for text in texts), *answers_tables(results))


def _paper_sections(results: Results) -> list[Section]:
    """Return the tables that the paper has, one per section, each with its plot of gains."""
    found: list[Section] = []
    if table := models_table(results):
        found.append(Section(table.title, (table,)))
    found += [Section(table.title, (table,)) for table in sets_tables(results)]
    for grouped in results.layout.grouped:
        table = grouped_table(results, grouped)
        if table is None:
            continue
        blocks: list[Block] = [table]
        if grouped.is_plotted and results.above("calm", grouped.measure)[1]:
            alt = f"{grouped.measure.label}: gains over m_B by language, from low to high resource"
            png = gains_plot(results, grouped)
            # A plot after a table of several pages would not be found.
            place = 0 if len(table.rows) > MOST_PRINTED else 1
            blocks.insert(place, Picture(f"plots/gains_{grouped.measure.task}_{grouped.measure.metric}.png", alt, png))
        found.append(Section(grouped.title, tuple(blocks)))
    if found:  # only once, below the first table
        found[0] = replace(found[0], blocks=(*found[0].blocks, Paragraph(results.layout.note)))
    return found


def _breakdown_sections(results: Results) -> list[Section]:
    """Return the breakdowns, one per section, each with its plot."""
    found = []
    for breakdown in results.layout.breakdowns:
        table = breakdown_table(results, breakdown)
        if table is None:
            continue
        blocks: list[Block] = [table]
        if breakdown.plot:
            path = f"plots/{breakdown.dimension}.png"
            blocks.insert(0, Picture(path, breakdown.title, breakdown_plot(results, breakdown)))
        if breakdown.plot == "lines":
            blocks.insert(1, Paragraph("Whiskers: 95 percent Wilson intervals over the test records, not over seeds."))
        found.append(Section(breakdown.title, tuple(blocks)))
    return found


def _systems_blocks(results: Results) -> tuple[Block, ...]:
    blocks: list[Block] = [*systems_tables(results)]
    if measures := results.measured(results.layout.drawn or results.layout.primary):
        alt = f"Every system: {' and '.join(measure.label for measure in measures)}"
        blocks.append(Picture("plots/systems.png", alt, systems_plot(results, measures)))
    varied = results.measured(results.layout.varied)
    if varied and any(map(results.group, ("share", "connections", "heads", "methods", *SIZE_GROUPS))):
        alt = f"{varied[0].label} by number of trained parameters"
        blocks.append(Picture("plots/scaling.png", alt, scaling_plot(results, varied[0])))
    blocks += filter(None, (training_costs(results), answering_costs(results)))
    return tuple(blocks) or (Paragraph(f"Figures of systems: {NOT_RUN}."),)


def _training_blocks(results: Results) -> tuple[Block, ...]:
    trained = [
        [
            read_training(results.folder, run.run, _named(system.label, run.seed, len(system.runs)), system.key)
            for run in system.runs
            if run.is_here
        ]
        for system in results.systems
    ]
    pictures = tuple(
        Picture(
            f"plots/training_{system.key}.png",
            f"Training curves of {system.label}",
            training_plot(trainings, system.label),
        )
        for system, trainings in zip(results.systems, trained, strict=True)
        if trainings and trainings[0].series("loss")[0]
    )
    every = [training for trainings in trained for training in trainings]
    every += [
        read_training(results.folder, other, f"{system.label}: {other}", system.key)
        for system, other in results.needed_trainings()
        if (results.folder / other / RUN_FILE).exists()
    ]
    of_composition = [
        training
        for system, trainings in zip(results.systems, trained, strict=True)
        if system.key == CALM or system.group in ("m_A", "D_C", "methods")
        for training in trainings
        if len(training.series(BITS_FIELD)[0]) > 1
    ]
    if not every:
        is_trained = any(run.is_trained for system in results.systems for run in system.runs)
        nothing = "The runs are not here." if is_trained else "Nothing was trained: all models are used as they are."
        return (Paragraph(nothing),)
    turn: tuple[Block, ...] = ()
    if of_composition:
        alt = "Bits per byte of held-out rows of D_C, step by step"
        turn = (Picture("plots/validation.png", alt, validation_plot(of_composition)),)
    return (*turn, training_table(every), *((Gallery(pictures),) if pictures else ()))


def _named(label: str, seed: int | None, count: int) -> str:
    return f"{label}, seed {seed}" if count > 1 else label


def _sample_blocks(results: Results) -> tuple[Block, ...]:
    samples = choose_samples(results)
    if not samples:
        return (Paragraph(f"Predictions of the composed model: {NOT_RUN}."),)
    note = Paragraph(
        "Chosen by the composed model's own scores on each record, evenly from its best to its worst. Long texts are"
        " cut; of several seeds the first is shown."
    )
    return (note, *(sample.table(labels(results)) for sample in samples))


def _data_blocks(results: Results) -> tuple[Block, ...]:
    if results.manifest is None:
        return (Paragraph("The folder has no data/manifest.json."),)
    overlap = overlap_table(results.manifest)
    return (files_table(results.manifest), *((overlap,) if overlap else ()))


def _run_blocks(results: Results) -> tuple[Block, ...]:
    return (runs_table(results), protocols_table(results))


def _deviations(results: Results) -> Block:
    return Bullets(results.deviations) if results.deviations else Paragraph(f"{RESULTS_FILE} lists none.")


def _seconds_block(results: Results) -> Block:
    return seconds_table(results.seconds) if results.seconds else Paragraph(f"{RESULTS_FILE} has no times.")


def _how_to_reproduce(results: Results) -> Block:
    run = results.run.facts if results.run else {}
    return reproduce_facts(run, results.seed, results.preset, results.git_commit, results.hardware)
