"""Mean and standard deviation of Table 1 and its controls over several `calmctl reproduce kv` folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.reporting.comparable import require_one, require_one_a_seed
from calmctl.reporting.kv_ablations import ABLATIONS_FOLDER, KVAblations, ablation_figures, load_kv_ablations, table5
from calmctl.reporting.kv_results import METRICS, KVResults, Metric, System, load_kv_results
from calmctl.reporting.kv_tables import metric_columns
from calmctl.reporting.paper import paper_table
from calmctl.reporting.spread import Spread
from calmctl.reporting.tables import Number, Table, Text, table_row, to_markdown
from data_builders.files import write_text
from data_builders.values import write_json


@dataclass(frozen=True)
class SeedSummary:
    """Several reproduce folders of one preset, one seed each, and the ablations of those that have some."""

    results: tuple[KVResults, ...]
    ablations: tuple[KVAblations, ...] = ()

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Return the seeds, in the order of the folders."""
        return tuple(result.seed for result in self.results)

    @property
    def systems(self) -> tuple[System, ...]:
        """Return what the experiments measured, and what they could have."""
        return self.results[0].systems

    def spread(self, system: System, metric: Metric) -> Spread:
        """Return what the folders measured for one system by one metric."""
        values = (result.figure(system, metric) for result in self.results)
        return Spread(tuple(value for value in values if value is not None))

    def tables(self) -> list[Table]:
        """Return Table 1, and Table 5 where the folders have ablations."""
        return [self.table(), *([table5(*self.ablations)] if self.ablations else [])]

    def table(self) -> Table:
        """Return mean ± standard deviation beside the paper's figures."""
        rows = tuple(
            table_row(Text(system.label), *(self._number(system, metric) for metric in METRICS))
            for system in self.systems
        )
        count = len(self.results)
        title = f"Key-value arithmetic, preset {self.results[0].preset}: {count} seed{'s' if count > 1 else ''}"
        caption = (
            "Exact match in percent, keys all held out; mean ± sample standard deviation over seeds"
            f" {', '.join(map(str, self.seeds))}. Paper: {paper_table('table1').source};"
            " differences in points."
        )
        return Table(title, metric_columns(), rows, caption)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for machines: mean, std and the values themselves."""
        systems: dict[str, dict[str, Any]] = {}
        for system in self.systems:
            systems[system.key] = {}
            for metric in METRICS:
                spread = self.spread(system, metric)
                systems[system.key][metric.key] = {
                    "mean": spread.mean,
                    "std": spread.std,
                    "values": list(spread.values),
                    "paper": paper_table("table1").figure(system.key, metric.key),
                }
        return {
            "preset": self.results[0].preset,
            "seeds": list(self.seeds),
            "git_commits": [result.git_commit for result in self.results],
            "systems": systems,
            "ablations": ablation_figures(self.ablations),
        }

    def _number(self, system: System, metric: Metric) -> Number:
        spread = self.spread(system, metric)
        is_partial = 0 < len(spread.values) < len(self.results)
        note = f"{len(spread.values)} of {len(self.results)} seeds" if is_partial else ""
        paper = paper_table("table1").figure(system.key, metric.key)
        return Number(spread.mean, paper=paper, spread=spread.std, note=note)


def aggregate_seeds(folders: Sequence[Path]) -> SeedSummary:
    """Read several reproduce folders that differ in their seed.

    Raises:
        UserError: no folder, one that is no reproduce folder, different presets or settings, or a seed that comes
            twice.
    """
    if not folders:
        raise UserError("no folder given; name the folders that `calmctl reproduce kv` wrote")
    results = tuple(load_kv_results(Path(folder)) for folder in folders)
    require_one("presets", (result.preset for result in results))
    require_one_a_seed([(result.seed, result.folder) for result in results])
    ablations = [(each, found) for each in results if (found := load_kv_ablations(each.folder)) is not None]
    require_one_a_seed([(each.seed, each.folder / ABLATIONS_FOLDER) for each, _ in ablations])
    return SeedSummary(results, tuple(found for _, found in ablations))


def write_seed_summary(summary: SeedSummary, folder: Path) -> list[Path]:
    """Write `seeds.md` and `seeds.json` into a folder and return their paths."""
    paths = [folder / "seeds.md", folder / "seeds.json"]
    write_text(paths[0], "\n".join(map(to_markdown, summary.tables())))
    write_json(paths[1], summary.to_dict())
    return paths
