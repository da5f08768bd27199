"""The tables of a report: systems, figures by language or other groups, runs and protocols."""

from __future__ import annotations

from calmctl.reporting.document.tables import Cell, Column, Number, Table, Text, signed, table_row
from calmctl.reporting.evaluations import BITS, BY_LANGUAGE, Evaluation
from calmctl.reporting.headline import answers_tables, number_of
from calmctl.reporting.measures import HEADLINE_MODELS, Breakdown, Grouped, Measure, paper_figure, paper_source
from calmctl.reporting.paper import paper_table
from calmctl.reporting.provenance import UNKNOWN
from calmctl.reporting.results import Results, System, SystemRun, size_difference
from calmctl.reporting.sets_table import sets_tables
from calmctl.reporting.systems_table import CALM, GROUPS, LORA, M_B


def systems_tables(results: Results) -> list[Table]:
    """Return one table per panel of the layout, with size and figures of every system, by group of systems."""
    tables = []
    for title, panel in results.layout.panels:
        measures = results.measured(panel)
        rows: list[tuple[Cell, ...]] = []
        headings = {}
        for group in GROUPS:
            systems = [system for system in results.group(group) if _is_asked(results, system, measures)]
            if systems and measures:
                headings[len(rows)] = results.heading(group)
                rows += [
                    table_row(_name(system), *_size(results, system), *_figures(results, system.key, measures))
                    for system in systems
                ]
        if rows:
            against = [Column("against CALM")] if results.system(CALM) else []
            columns = (Column("model", is_text=True), Column("trained params"), *against)
            caption = f"{_units(measures)} {_seeds(results)}{_source(measures)}"
            tables.append(Table(title, (*columns, *_columns(measures)), tuple(rows), caption, headings))
    return tables


def leading_tables(results: Results) -> list[Table]:
    """Return the tables that come first in a terminal: the headline models, the answers, the figures by test set."""
    models = models_table(results)
    return [*([models] if models else []), *answers_tables(results), *sets_tables(results)]


def models_table(results: Results) -> Table | None:
    """Return the figures of the headline models as a table; None if the layout has no such table."""
    measures = results.measured(results.layout.panels[0][1])
    systems = [system for key in HEADLINE_MODELS if (system := results.system(key))]
    if not results.layout.models_table or not measures or not systems:
        return None
    rows = tuple(table_row(_name(system), *_figures(results, system.key, measures)) for system in systems)
    columns = (Column("model", is_text=True), *_columns(measures))
    caption = f"{_units(measures)} {_seeds(results)}{_source(measures)}"
    return Table(results.layout.models_table, columns, rows, caption)


def grouped_table(results: Results, grouped: Grouped) -> Table | None:
    """Return a measure by group of records, from low to high resource, beside the paper's; None if too few figures."""
    measure = grouped.measure
    codes = results.groups(measure)
    keys = [
        key
        for key in (*HEADLINE_MODELS, LORA)
        if any(results.group_spread(key, measure, code).values for code in codes)
    ]
    if (len(codes) < 2 and not grouped.paper_table) or not keys:
        return None
    rows: list[tuple[Cell, ...]] = []
    for code in codes:
        name = results.name(measure, code)
        label = name if name == code else f"{name} ({code})"
        cells = (_group_number(results, key, grouped, code) for key in keys)
        rows.append(table_row(Text(label), *cells))
    whole = "all" if measure.metric == BITS else "average"  # bits are summed over all bytes
    rows.append(table_row(Text(whole), *(number_of(results, key, measure) for key in keys)))
    if results.system(M_B) and len(codes) > 1:
        above = (f"{count} of {total}" for count, total in (results.above(key, measure) for key in keys))
        told = (Text("–" if key == M_B else count) for key, count in zip(keys, above, strict=True))
        rows.append(table_row(Text(_beyond(measure)), *told))
    columns = (Column(grouped.column, is_text=True), *(Column(results.label(key)) for key in keys))
    return Table(grouped.title, columns, tuple(rows), _grouped_caption(results, grouped))


def _group_number(results: Results, key: str, grouped: Grouped, code: str) -> Number:
    spread = results.group_spread(key, grouped.measure, code)
    paper = paper_table(grouped.paper_table).figure(key, grouped.codes.get(code, "")) if grouped.paper_table else None
    note = ""
    evaluations = results.evaluations(grouped.measure.task, key)
    if paper is not None and any(results.is_own(each) or each.data.get("limit") for each in evaluations):
        paper, note = None, f"paper {paper:.1f}"  # the paper's records differ, so no difference is shown
    href = results.href(key, grouped.measure.task) if spread.values else ""
    return Number(spread.mean, paper, spread.std, grouped.measure.digits, href, note)


def _grouped_caption(results: Results, grouped: Grouped) -> str:
    order = "From low to high resource, as m_B's own figures have it: its worst first." if grouped.is_plotted else ""
    parts = [_units([grouped.measure]), order, _seeds(results)]
    if grouped.paper_table:
        source = paper_table(grouped.paper_table).source
        parts.append(f"Paper: {source}, of other models; differences, over the same records only, in points.")
        parts.append(grouped.note)
    return " ".join(part for part in parts if part)


def breakdown_table(results: Results, breakdown: Breakdown) -> Table | None:
    """Return the systems' figures by group of records, each system under a heading; None if there are no figures."""
    groups, measures = results.breakdown_groups(breakdown), breakdown.measures
    rows: list[tuple[Cell, ...]] = []
    headings = {}
    for system in results.broken_down(breakdown):
        headings[len(rows)] = system.label
        for group in groups:
            size = results.group_size(system.key, breakdown, group)
            figures = (
                Number(spread.mean, spread=spread.std, digits=measure.digits)
                for measure in measures
                for spread in [results.group_spread(system.key, measure, group, breakdown.dimension)]
            )
            count = Text("–" if size is None else f"{size:,}")
            rows.append(table_row(Text(breakdown.labels.get(group, group)), count, *figures))
    if not rows:
        return None
    columns = (Column(breakdown.column, is_text=True), Column("records"), *_columns(list(measures)))
    return Table(breakdown.title, columns, tuple(rows), f"{_units(list(measures))} {_seeds(results)}", headings)


def runs_table(results: Results) -> Table:
    """Return every run with its seed and links to its folder, configuration and evaluations."""
    tasks = list(results.evaluations_by_name())
    columns = [Column(label, is_text=True) for label in ("model", "seed", "run", "config")]
    columns += [Column(task, group="evaluations", is_text=True) for task in tasks]
    rows = tuple(
        table_row(
            Text(system.label),
            Text(UNKNOWN if run.seed is None else str(run.seed)),
            Text(run.run, href=run.run if run.is_here else ""),
            _config(run),
            *(_evaluation(run, task) for task in tasks),
        )
        for system in results.systems
        for run in system.runs
    )
    return Table("Runs", tuple(columns), rows, "How each task was asked and scored is under protocols.")


def _config(run: SystemRun) -> Text:
    if run.is_here:
        return Text("config.yaml", href=f"{run.run}/config.yaml")
    return Text("not here" if run.is_trained else "used as it is")


def _evaluation(run: SystemRun, task: str) -> Text:
    found = run.evaluations.get(task)
    return Text("metrics", href=f"{found.folder}/metrics.json") if found else Text("–")


def protocols_table(results: Results) -> Table:
    """Return how each task was prompted, decoded and scored; runs with the same conditions share a row."""
    columns = ("evaluation", "prompt format", "shots", "decoding", "records", "data", "runs")
    rows: list[tuple[Cell, ...]] = []
    for task, alike in _alike(results):
        first = alike[0]
        limit, row = first.data.get("limit"), first.conditions.get("first_row")
        start = f" from row {row} on" if row else ""
        each = " of each" if BY_LANGUAGE in first.breakdowns else ""
        shown = (
            task,
            _word(first.conditions.get("format")),
            _word(first.conditions.get("shots")),
            _word(first.conditions.get("decoding")),
            f"{UNKNOWN if first.n is None else f'{first.n:,}'}{f', first {limit}{each}' if limit else ''}{start}",
            "held out of its own data" if results.is_own(first) else _word(first.data.get("source")).rsplit("/", 1)[-1],
            str(len(alike)),
        )
        rows.append(tuple(Text(text) for text in shown))
    caption = "Metric signatures, stop strings, checksums and the first prompt of each stand in its metrics.json."
    return Table("Protocols", tuple(Column(label, is_text=True) for label in columns), tuple(rows), caption)


def _alike(results: Results) -> list[tuple[str, list[Evaluation]]]:
    """Return (evaluation name, evaluations with equal conditions) pairs."""
    together: list[tuple[str, list[Evaluation]]] = []
    for name, evaluations in sorted(results.evaluations_by_name().items()):
        groups: list[list[Evaluation]] = []
        for found in evaluations:
            alike = next((group for group in groups if group[0].conditions == found.conditions), None)
            groups.append([found]) if alike is None else alike.append(found)
        together += [(name, group) for group in groups]
    return together


def _is_asked(results: Results, system: System, measures: list[Measure]) -> bool:
    """Return whether a system belongs in a panel: comparisons without training are not made on every task."""
    return system.group != "untrained" or any(results.spread(system.key, measure).values for measure in measures)


def _figures(results: Results, key: str, measures: list[Measure]) -> list[Number]:
    return [_overall(results, key, measure) for measure in measures]


def _overall(results: Results, key: str, measure: Measure) -> Number:
    """Return our figure with the paper's; show a difference only if the records match.

    If the measure's gains by language are plotted, also note in how many languages the system beats m_B.
    """
    paper, notes = paper_figure(key, measure), []
    if paper is not None and not measure.same_records:
        paper, notes = None, [f"paper {paper:.1f}"]
    if key != M_B and any(grouped.measure == measure and grouped.is_plotted for grouped in results.layout.grouped):
        count, total = results.above(key, measure)
        notes += [f"{_beyond(measure)} in {count} of {total}"] if total else []
    return number_of(results, key, measure, paper, ", ".join(notes))


def _beyond(measure: Measure) -> str:
    """Return the words for "better than m_B": above or below it."""
    return "below m_B" if measure.is_lower_better else "above m_B"


def _columns(measures: list[Measure]) -> list[Column]:
    return [Column(measure.label) for measure in measures]


def _name(system: System) -> Text:
    run = system.runs[0]
    return Text(system.label, href=run.run if run.is_here else "")


def _size(results: Results, system: System) -> list[Text]:
    """Return the number of trained parameters, and if there is a composition the difference to CALM's in percent."""
    count, difference = system.runs[0].trainable_parameters, size_difference(results, system)
    against = [Text("" if difference is None else f"{signed(difference)}%")] if results.system(CALM) else []
    return [Text("–" if count is None else f"{count:,}"), *against]


def _units(measures: list[Measure]) -> str:
    lower = " Bits per byte: lower is better." if any(m.is_lower_better for m in measures) else ""
    scores = "Percent." if any(not measure.is_lower_better for measure in measures) else ""
    return f"{scores}{lower}".strip()


def _source(measures: list[Measure]) -> str:
    """Return a sentence on the tables of the paper's figures; empty if the paper has none for these measures."""
    if not (source := paper_source(measures)):
        return ""
    same = any(measure.same_records for measure in measures)
    return f" Paper: {source}; differences in points." if same else f" Paper: {source}, over other records."


def _seeds(results: Results) -> str:
    calm = results.system(CALM)
    count = len(calm.runs) if calm else max(len(system.runs) for system in results.systems)
    return f"Mean ± sample standard deviation over {count} seeds where there are several." if count > 1 else "One seed."


def _word(value: object) -> str:
    return UNKNOWN if value is None else str(value)
