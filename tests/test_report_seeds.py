"""Reproductions that differ in their seed, as one: what is averaged, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from calmctl.errors import UserError
from calmctl.reporting.document.tables import to_markdown
from calmctl.reporting.layouts import FLORES_CHRF, KV_MATH
from calmctl.reporting.measures import paper_figure
from calmctl.reporting.seeds import pool, pooled_figures, pooled_tables, write_pooled
from tests.report_figures import KV
from tests.report_folder import change, of, read, write, write_before, write_folder

FIRST = {"kv": ("kv", KV_MATH, 86.68), "ntl": ("flores", FLORES_CHRF, 26.93)}
every = pytest.mark.parametrize("name", FIRST)


def tables_of(*folders: Path) -> str:
    return "\n".join(map(to_markdown, pooled_tables(pool(folders))))


@every
def test_mean_and_deviation_over_seeds(tmp_path: Path, name: str) -> None:
    """A folder counts as one run: of several seeds of its own it is their mean."""
    shifts = (-1.0, 0.0, 2.5)
    own = [(0, 1, 2), None, None] if name == "ntl" else [None] * 3
    folders = [
        write_folder(tmp_path / str(seed), name, seeds=own[seed], seed=seed, shift=shift)
        for seed, shift in enumerate(shifts)
    ]
    change(folders[2], lambda results: results["systems"].remove(of(results, "random_aug")))
    task, measure, figure = FIRST[name]
    pooled = pool(folders)
    spread = pooled.spread("calm", measure)
    assert spread.values == pytest.approx([figure + shift for shift in shifts])
    assert spread.mean == pytest.approx(numpy.mean(spread.values))
    assert spread.std == pytest.approx(numpy.std(spread.values, ddof=1))
    text = tables_of(*folders)
    assert f"{figure + 0.5:.1f} ± 1.8" in text and "random m_A (2 of 3 seeds)" in text and "over 3 seeds" in text
    markdown, machine = write_pooled(pooled, tmp_path / "out")
    assert (markdown.name, machine.name) == ("seeds.md", "seeds.json") and "seeds 0, 1, 2" in markdown.read_text()
    found = read(machine)
    assert found == json.loads(json.dumps(pooled_figures(pooled))) and found["section"] == name
    assert found["systems"]["calm"]["metrics"][task][measure.metric]["values"] == pytest.approx(list(spread.values))
    assert found["systems"]["calm"]["metrics"][task][measure.metric].get("paper") == paper_figure("calm", measure)
    assert found["systems"]["random_aug"]["seeds"] == [0, 1]


def test_ablations_are_averaged_over_the_seeds_that_have_them(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", "kv", seed=7, keys=(*KV, "share_0.5", "lora"))
    other = write_folder(tmp_path / "other", "kv", seed=8, shift=2.0, keys=(*KV, "share_0.5", "prefix"))
    settings = "preset: tiny\nseed: {}\nablate: {}\nablations:\n  methods: [{}]\n"
    (one / "config.yaml").write_text(settings.format(7, "true", "lora"))
    (other / "config.yaml").write_text(settings.format(8, "true", "prefix"))
    for folder in (one, other):
        change(folder, lambda found: found.update(may_differ=["seed", "ablate", "ablations"]))
    text = tables_of(one, other)
    assert "| 50% of the keys | 123,456 | ±0.0% | 97.6 ± 1.4 | 93.3 ± 1.4 | 90.1 ± 1.4 | 5.9 ± 1.4 |" in text
    assert "CALM, by share of keys in D_C (its own: 20%)" in text
    for folders in ((one, other), (other, one)):
        assert {"LoRA (1 of 2 seeds)", "prefix tuning (1 of 2 seeds)"} <= {
            system.label for system in pool(folders).systems
        }
    plain = write_folder(tmp_path / "plain", "kv", seed=9)
    (plain / "config.yaml").write_text(settings.format(9, "false", ""))
    assert "50% of the keys (2 of 3 seeds)" in tables_of(plain, one, other)


def test_breakdowns_are_averaged_too(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / str(seed), "kv", seed=seed, shift=2.0 * seed) for seed in (0, 1)]
    spread = pool(folders).group_spread("dc_subs", KV_MATH, "4", "by_num_operands")
    assert spread.values == pytest.approx([61.25 + 1.5, 63.25 + 1.5])


@every
def test_one_seed_has_no_deviation(tmp_path: Path, name: str) -> None:
    _, measure, figure = FIRST[name]
    spread = pool([write_folder(tmp_path, name)]).spread("calm", measure)
    assert (spread.mean, spread.std) == (figure, None)


def test_folders_of_the_version_before_are_averaged(tmp_path: Path) -> None:
    folders = [write_before(tmp_path / str(seed), seed) for seed in (0, 1)]
    assert pool(folders).spread("share_0.5", KV_MATH).values == (89.07, 89.07)


@pytest.mark.parametrize("edit, message", [
    (lambda folders: folders.pop(), "both of seed 0"),
    (lambda folders: change(folders[1], lambda found: found.update(preset="other")), "presets .other, tiny"),
    (lambda folders: change(folders[1], lambda found: found.update(section="code")), "experiments .code, ntl"),
])  # fmt: skip
def test_other_folders_and_one_seed_twice_are_refused(tmp_path: Path, edit: Callable, message: str) -> None:
    folders = [write_folder(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    edit(folders)
    with pytest.raises(UserError, match=message):
        pool([*folders, folders[0]] if len(folders) == 1 else folders)


def test_only_runs_that_differ_in_nothing_but_the_seed_are_averaged(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        settings = f"seed: {seed}\njobs: {seed}\ndata:\n  seed: {seed}\ncompose:\n  train:\n    steps: "
        more = f"compare: [lora{', prefix' * seed}]\ntasks: [flores{', gsm8k' * seed}]\n"  # one of them was given more
        more += f"num_bridge_seeds: {1 + seed}\n"
        more += f"flores:\n  task: flores\n  limit: 9\ngsm8k:\n  task: gsm8k\n  limit: {seed}\n"
        (folder / "config.yaml").write_text(f"{more}{settings}600\n")
        may_differ = ["seed", "jobs", "data.seed", "compare", "tasks", "num_bridge_seeds", *["gsm8k"] * (not seed)]
        change(folder, lambda found, may_differ=may_differ: found.update(may_differ=may_differ))
    assert len(pool(folders).systems) > 1
    (folders[1] / "config.yaml").write_text(f"{more}{settings}700\n")
    with pytest.raises(UserError, match=r"differ in more than their seed \(compose.train.steps: 600 -> 700\)"):
        pool(folders)
    (folders[1] / "config.yaml").write_text(f"{more.replace('limit: 9', 'limit: 8')}{settings}600\n")
    with pytest.raises(UserError, match=r"differ in more than their seed \(flores.limit: 9 -> 8\)"):
        pool(folders)
    # A third folder that was not asked a task does not hide what the others were asked.
    third = write_folder(tmp_path / "s2", seed=2)
    (third / "config.yaml").write_text(f"{more.replace('[flores, gsm8k]', '[]')}{settings}600\n")
    change(third, lambda found: found.update(may_differ=["flores", "gsm8k"]))
    with pytest.raises(UserError, match="flores.limit: 9 -> 8"):
        pool([*folders, third])
    (folders[1] / "config.yaml").unlink()
    with pytest.raises(UserError, match="config.yaml: missing or damaged"):
        pool(folders)


def test_seeds_that_were_asked_other_records_are_not_averaged(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)]
    for path in folders[1].glob("eval/flores/*/metrics.json"):
        metrics = read(path)
        write(path, metrics | {"protocol": {**metrics["protocol"], "release": "flores_plus"}})
    told = r'flores: not comparable, as the evaluations differ in release \(null and "flores_plus"\)'
    with pytest.raises(UserError, match=told):
        pool(folders)
    # What each has held out of its own data is other records of the same kind.
    for folder in folders:
        shutil.rmtree(folder / "data")
        for path in folder.glob("eval/flores/*/metrics.json"):
            checksum = f"made in {folder.name}"
            write(path, read(path) | {"protocol": {"data_sha256": {"test": checksum}}})
            write(folder / "data/manifest.json", {"files": {"test": {"sha256": checksum, "rows": 1, "bytes": 1}}})
    assert pool(folders).spread("calm", FLORES_CHRF).values


def test_seeds_of_key_values_have_data_of_their_own_but_are_asked_alike(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / f"s{seed}", "kv", seed=seed, keys=(*KV, "share_0.5")) for seed in (0, 1)]
    settings = "seed: {}\ntasks: [kv]\neval:\n  task: kv\n  limit: {}\n"
    for seed, folder in enumerate(folders):
        (folder / "config.yaml").write_text(settings.format(seed, 20))
    checksums = {read(folder / "eval/kv/calm/metrics.json")["data"]["sha256"] for folder in folders}
    assert len(checksums) == 2 and len(pool(folders).systems) == len(KV) + 1
    (folders[1] / "config.yaml").write_text(settings.format(1, 30))
    with pytest.raises(UserError, match=r"differ in more than their seed \(eval.limit: 20 -> 30\)"):
        pool(folders)
