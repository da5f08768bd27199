"""The report of a `calmctl reproduce ntl` or `code` folder: what came out, tables, plots, samples, provenance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from calmctl.escaping import visible
from calmctl.reporting.data_facts import files_table, overlap_table
from calmctl.reporting.document import Block, Bullets, Document, Gallery, Paragraph, Picture, Section
from calmctl.reporting.document_files import write_document
from calmctl.reporting.evaluations import not_comparable
from calmctl.reporting.provenance import reproduce_facts, seconds_table
from calmctl.reporting.section_costs import answering_costs, section_costs
from calmctl.reporting.section_headline import answers_table, headline
from calmctl.reporting.section_plots import gains_plot, systems_plot
from calmctl.reporting.section_results import RESULTS_FILE, SectionResults, load_section_results
from calmctl.reporting.section_samples import labels, section_samples
from calmctl.reporting.section_tables import (
    grouped_table,
    models_table,
    protocols_table,
    runs_table,
    systems_tables,
)
from calmctl.reporting.sections import CALM
from calmctl.reporting.tables import NOT_RUN
from calmctl.reporting.terminal import print_tables
from calmctl.reporting.training_plot import BITS_FIELD, training_plot, validation_plot
from calmctl.reporting.trainings import read_training, training_table
from data_builders.values import read_json

MOST_PRINTED = 24
"""Tables of more languages than that are left to the report."""


def write_section_report(folder: Path) -> list[Path]:
    """Write `plots/*.png`, `report.md` and `report.html` into a reproduce folder and return their paths.

    Raises:
        UserError: `folder` is no `calmctl reproduce ntl` or `code` folder, or one of its files is missing or damaged.
    """
    folder = Path(folder)
    return write_document(section_document(load_section_results(folder)), folder)


def section_terminal_tables(folder: Path) -> None:
    """Print what came out: the sentences, the answers, and the tables that a terminal has room for."""
    results = load_section_results(Path(folder))
    print(visible("\n".join(headline(results))), end="\n\n")
    grouped = (grouped_table(results, each) for each in results.section.grouped)
    short = [table for table in grouped if table and len(table.rows) <= MOST_PRINTED]
    print_tables(answers_table(results), *short, *systems_tables(results))


def measured(folder: Path) -> dict[str, Any]:
    """Return the content of `results.json` with the sentences that say what came out, for machines."""
    folder = Path(folder)
    told = list(headline(load_section_results(folder)))
    return {**read_json(folder / RESULTS_FILE), "headline": told}


def section_document(results: SectionResults) -> Document:
    """Return the report as a document, with its plots drawn."""
    sections = (
        Section("What came out", _answer_blocks(results)),
        *_paper_sections(results),
        Section("Every system", _systems_blocks(results)),
        Section("Training runs", _training_blocks(results)),
        Section("Sample predictions", _sample_blocks(results)),
        Section("Data", _data_blocks(results)),
        Section("Runs and protocols", _run_blocks(results)),
        Section("Deviations from the paper", (_deviations(results),)),
        Section("Time per stage", (_seconds_block(results),)),
        Section("How to reproduce", (_how_to_reproduce(results),)),
    )
    title = f"{results.section.title}: preset {results.preset}, seed {results.seed}"
    return Document(title, headline(results), sections)


def _answer_blocks(results: SectionResults) -> tuple[Block, ...]:
    texts = [*not_comparable(results.comparable_evaluations()).values(), *results.disagreements()]
    if results.run is not None and results.run.status in ("failed", "interrupted"):
        texts.insert(0, f"This run is {results.run.status}: it may be incomplete.")
    return (*(Paragraph(text, is_warning=True) for text in texts), answers_table(results))


def _paper_sections(results: SectionResults) -> list[Section]:
    """Return the tables of the paper, one a section, each with its plot of gains."""
    found: list[Section] = []
    if table := models_table(results):
        found.append(Section(table.title, (table,)))
    for grouped in results.section.grouped:
        table = grouped_table(results, grouped)
        if table is None:
            continue
        blocks: list[Block] = [table]
        if grouped.is_plotted and results.above("calm", grouped.measure)[1]:
            alt = f"{grouped.measure.label}: gains over m_B by language, from low to high resource"
            png = gains_plot(results, grouped)
            # Where the table takes pages, the picture comes first.
            place = 0 if len(table.rows) > MOST_PRINTED else 1
            blocks.insert(place, Picture(f"plots/gains_{grouped.measure.task}_{grouped.measure.metric}.png", alt, png))
        found.append(Section(grouped.title, tuple(blocks)))
    if found:  # said once, below the first table with figures of the paper
        found[0] = replace(found[0], blocks=(*found[0].blocks, Paragraph(results.section.note)))
    return found


def _systems_blocks(results: SectionResults) -> tuple[Block, ...]:
    blocks: list[Block] = [*systems_tables(results)]
    if measures := results.measured(results.section.primary):
        alt = f"Every system: {' and '.join(measure.label for measure in measures)}"
        blocks.append(Picture("plots/systems.png", alt, systems_plot(results, measures)))
    blocks += filter(None, (section_costs(results), answering_costs(results)))
    return tuple(blocks) or (Paragraph(f"Figures of systems: {NOT_RUN}."),)


def _training_blocks(results: SectionResults) -> tuple[Block, ...]:
    trained = [
        [
            read_training(results.folder, run.run, _named(system.label, run.seed, len(system.runs)), system.key)
            for run in system.runs
            if run.is_trained
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
    of_composition = [
        training
        for system, trainings in zip(results.systems, trained, strict=True)
        if system.key == CALM or system.group in ("m_A", "methods")
        for training in trainings
        if len(training.series(BITS_FIELD)[0]) > 1
    ]
    if not every:
        return (Paragraph("Nothing was trained: all models are used as they are."),)
    turn: tuple[Block, ...] = ()
    if of_composition:
        alt = "Bits per byte of held-out rows of D_C, step by step"
        turn = (Picture("plots/validation.png", alt, validation_plot(of_composition)),)
    return (*turn, training_table(every), *((Gallery(pictures),) if pictures else ()))


def _named(label: str, seed: int | None, count: int) -> str:
    return f"{label}, seed {seed}" if count > 1 else label


def _sample_blocks(results: SectionResults) -> tuple[Block, ...]:
    samples = section_samples(results)
    if not samples:
        return (Paragraph(f"Predictions of the composed model: {NOT_RUN}."),)
    note = Paragraph(
        "Chosen by the composed model's own scores on each record, evenly from its best to its worst. Long texts are"
        " cut; of several seeds the first is shown."
    )
    return (note, *(sample.table(labels(results)) for sample in samples))


def _data_blocks(results: SectionResults) -> tuple[Block, ...]:
    if results.manifest is None:
        return (Paragraph("The folder has no data/manifest.json."),)
    overlap = overlap_table(results.manifest)
    return (files_table(results.manifest), *((overlap,) if overlap else ()))


def _run_blocks(results: SectionResults) -> tuple[Block, ...]:
    return (runs_table(results), protocols_table(results))


def _deviations(results: SectionResults) -> Block:
    return Bullets(results.deviations) if results.deviations else Paragraph(f"{RESULTS_FILE} lists none.")


def _seconds_block(results: SectionResults) -> Block:
    return seconds_table(results.seconds) if results.seconds else Paragraph(f"{RESULTS_FILE} has no times.")


def _how_to_reproduce(results: SectionResults) -> Block:
    run = results.run.facts if results.run else {}
    return reproduce_facts(run, results.seed, results.preset, results.git_commit, results.hardware)
