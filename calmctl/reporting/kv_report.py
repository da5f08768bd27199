"""The report of a `calmctl reproduce kv` folder: headline, tables, plots, deviations and how to repeat it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calmctl.escaping import visible
from calmctl.reporting import kv_tables, plots
from calmctl.reporting.document import (
    Block,
    Bullets,
    Document,
    Gallery,
    Paragraph,
    Picture,
    Section,
)
from calmctl.reporting.document_files import write_document
from calmctl.reporting.kv_ablation_plots import ablations_plot, scaling_plot
from calmctl.reporting.kv_ablations import (
    ABLATIONS_FOLDER,
    TABLE_5_FILE,
    ablations_cost,
    load_kv_ablations,
    table5,
)
from calmctl.reporting.kv_results import (
    ANCHOR,
    AUG,
    CALM,
    CONTROLS,
    KV_MATH,
    NUM_MATH,
    TABLE_FILE,
    KVResults,
    load_kv_results,
)
from calmctl.reporting.kv_samples import kv_samples
from calmctl.reporting.paper import TABLE_1
from calmctl.reporting.provenance import reproduce_facts, seconds_table
from calmctl.reporting.tables import NOT_RUN, signed
from calmctl.reporting.terminal import print_tables
from calmctl.reporting.training_plot import training_plot
from calmctl.reporting.trainings import training_table
from data_builders.values import read_json

__all__ = [
    "KVResults",
    "headline",
    "kv_document",
    "load_kv_results",
    "measured_tables",
    "terminal_table",
    "write_kv_report",
]

KEPT_WITHIN_POINTS = 2.0
"""How far the composed model's NUM-MATH may lie below m_B's and still count as kept; the paper's: 1.7."""


def write_kv_report(folder: Path) -> list[Path]:
    """Write `plots/*.png`, `report.md` and `report.html` into a reproduce folder and return their paths.

    Raises:
        UserError: `folder` is no `calmctl reproduce kv` folder, or one of its files is damaged.
    """
    folder = Path(folder)
    return write_document(kv_document(load_kv_results(folder)), folder)


def terminal_table(folder: Path) -> None:
    """Print what came out, Table 1 beside the paper's and the controls on stdout."""
    results = load_kv_results(Path(folder))
    print(visible("\n".join(headline(results))), end="\n\n")
    by_augs = kv_tables.augs_table(results)
    print_tables(kv_tables.table1(results), kv_tables.controls_table(results), *([by_augs] if by_augs else []))
    if ablations := load_kv_ablations(Path(folder)):
        print_tables(table5(ablations))


def measured_tables(folder: Path) -> dict[str, Any]:
    """Return the content of `table1.json`, and of `table5.json` where there are ablations, by the tables' names."""
    paths = {"table1": folder / TABLE_FILE, "table5": folder / ABLATIONS_FOLDER / TABLE_5_FILE}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}


def headline(results: KVResults) -> tuple[str, ...]:
    """Return the sentences that say what came out, the composed model's KV-MATH first."""
    composed, alone = results.figure(CALM, KV_MATH), results.figure(ANCHOR, NUM_MATH)
    expected = TABLE_1[CALM.key][KV_MATH.key]
    if composed is None:
        first = f"Composed stepwise KV-MATH on held-out keys: {NOT_RUN} (paper: {expected:.1f})."
    else:
        first = (
            f"Composed stepwise KV-MATH on held-out keys: {composed:.1f} percent, paper {expected:.1f}"
            f" ({signed(round(composed, 1) - expected)} points)."
        )
    others = [(system.short, results.figure(system, KV_MATH)) for system in (AUG, ANCHOR, CONTROLS[-1])]
    rest = "; ".join(f"{name} {NOT_RUN if value is None else f'{value:.1f}'}" for name, value in others)
    return (
        first,
        _num_math_sentence(results.figure(CALM, NUM_MATH), alone),
        f"The same questions without composition, and composed with an untrained m_A: {rest}.",
    )


def _num_math_sentence(composed: float | None, alone: float | None) -> str:
    if composed is None or alone is None:
        return f"Whether m_B's NUM-MATH is kept is not known: {NOT_RUN}."
    if alone <= KEPT_WITHIN_POINTS:
        return f"m_B has no NUM-MATH that could be kept: {alone:.1f} alone, {composed:.1f} composed."
    change = round(composed, 1) - round(alone, 1)
    paper = [TABLE_1[system.key][NUM_MATH.key] for system in (CALM, ANCHOR)]
    verdict = "kept" if change >= -KEPT_WITHIN_POINTS else "not kept"
    return (
        f"m_B's NUM-MATH is {verdict}: {composed:.1f} composed against {alone:.1f} alone"
        f" ({signed(change)} points; kept means at most {KEPT_WITHIN_POINTS:.0f} points below;"
        f" in the paper {paper[0]:.1f} against {paper[1]:.1f})."
    )


def kv_document(results: KVResults) -> Document:
    """Return the report as a document, with its plots drawn."""
    sections = (
        Section("Table 1: measured beside the paper", _table1_blocks(results)),
        Section("Controls", _controls_blocks(results)),
        *_ablations_sections(results.folder),
        Section("Accuracy by operand count", _operand_blocks(results)),
        Section("Held-in and held-out keys", _strata_blocks(results)),
        Section("Training runs", _training_blocks(results)),
        Section("Sample predictions", _sample_blocks(results)),
        Section("Deviations from the paper", (_deviations(results),)),
        Section("Time per stage", (_seconds_block(results),)),
        Section("How to reproduce", (_how_to_reproduce(results),)),
    )
    title = f"Key-value arithmetic: preset {results.preset}, seed {results.seed}"
    return Document(title, headline(results), sections)


def _table1_blocks(results: KVResults) -> tuple[Block, ...]:
    warnings = [Paragraph(text, is_warning=True) for text in results.disagreements()]
    if results.run is not None and results.run.status in ("failed", "interrupted"):
        warnings.insert(0, Paragraph(f"This run is {results.run.status}: it may be incomplete.", is_warning=True))
    return (
        *warnings,
        kv_tables.table1(results),
        Paragraph(
            "Stepwise: the model writes the numbers, then the value. Direct: the value at once. CALM is"
            " composed on D_C mix, over held-in keys. The paper"
            " does not say how its KV-MATH was prompted; its figures stand beside the stepwise protocol."
        ),
        Picture("plots/table1.png", "Table 1 as bars, measured beside the paper", plots.table1_plot(results)),
    )


def _controls_blocks(results: KVResults) -> tuple[Block, ...]:
    return (
        kv_tables.controls_table(results),
        Picture("plots/controls.png", "Composed model, m_B and controls", plots.controls_plot(results)),
    )


def _ablations_sections(folder: Path) -> tuple[Section, ...]:
    ablations = load_kv_ablations(folder)
    if ablations is None:
        return ()
    blocks = (
        table5(ablations),
        Picture("plots/ablations.png", "Held-out KV-MATH of every variant", ablations_plot(ablations)),
        Picture("plots/scaling.png", "Held-out KV-MATH by share of keys and by size", scaling_plot(ablations)),
        ablations_cost(ablations, folder),
    )
    return (Section("Ablations and other methods", blocks),)


def _operand_blocks(results: KVResults) -> tuple[Block, ...]:
    tables = kv_tables.operand_tables(results)
    if not tables:
        return (Paragraph(f"Evaluation by operand count: {NOT_RUN}."),)
    alt = "Accuracy by number of operands; bars are 95 percent intervals over test expressions"
    note = Paragraph("Plot: bars are 95 percent Wilson intervals over the test expressions, not over seeds.")
    return (Picture("plots/operands.png", alt, plots.operands_plot(results)), note, *tables)


def _strata_blocks(results: KVResults) -> tuple[Block, ...]:
    if not any(found.by_stratum for found in results.evaluations.values()):
        return (Paragraph(f"Evaluation by stratum: {NOT_RUN}."),)
    alt = "Accuracy on held-in, mixed and held-out keys"
    by_augs = kv_tables.augs_table(results)
    return (
        *((by_augs,) if by_augs else ()),
        kv_tables.strata_table(results, CALM),
        kv_tables.strata_table(results, AUG),
        Picture("plots/strata.png", alt, plots.strata_plot(results)),
    )


def _training_blocks(results: KVResults) -> tuple[Block, ...]:
    pictures = tuple(
        Picture(
            f"plots/training_{training.name}.png",
            f"Training curves of {training.label}",
            training_plot([training], training.label),
        )
        for training in results.trainings
        if training.series("loss")[0]
    )
    gallery = (Gallery(pictures),) if pictures else ()
    return (training_table(results.trainings), *gallery)


def _sample_blocks(results: KVResults) -> tuple[Block, ...]:
    samples = kv_samples(results.folder)
    if not samples:
        return (Paragraph(f"Predictions of the composed model: {NOT_RUN}."),)
    note = Paragraph(
        "Chosen, not typical: held-out expressions, first some that the composed model answers stepwise, then"
        " some that it misses."
    )
    return (note, *(sample.table() for sample in samples))


def _deviations(results: KVResults) -> Block:
    return Bullets(results.deviations) if results.deviations else Paragraph(f"{TABLE_FILE} lists none.")


def _seconds_block(results: KVResults) -> Block:
    return seconds_table(results.seconds) if results.seconds else Paragraph(f"{TABLE_FILE} has no times.")


def _how_to_reproduce(results: KVResults) -> Block:
    run = results.run.facts if results.run else {}
    return reproduce_facts(run, results.seed, results.preset, results.git_commit, results.hardware)
