"""Settings that Hydra, YAML or the file system would choke on, or that would store a secret: one line, at once."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calmctl.cli.main import main
from calmctl.config import list_presets, load_config
from calmctl.errors import UserError
from calmctl.modeling.connections import resolve_connections
from calmctl.runs.identity import read_settings
from calmctl.runs.record import read_run
from calmctl.runs.run import Run
from calmctl.training.configs import ComposeConfig
from data_builders.files import write_bytes, write_text
from data_builders.row_files import append_jsonl

SECRET = "hf_do_not_store_me"


def bomb(levels: int = 12) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


# What a preset of the user holds, and what is said of it.
PRESETS: dict[str, tuple[str | bytes, str]] = {
    "alias bomb": (bomb(), "mine.yaml:4: more than 10,000 values"),
    "itself by alias": ("anchor: &a [*a]\n", "mine.yaml:1: *a names itself"),
    "itself": ("defaults:\n- mine\n- _self_\n", "builds on itself (compose/mine -> compose/mine)"),
    "itself by way of another": ("defaults:\n- other\n", "(compose/mine -> compose/other -> compose/mine)"),
    "itself by its full name": ("defaults:\n- /compose@_global_: mine\n", "builds on itself"),
    "its own value": ("anchor: ${anchor}\n", "Recursive interpolation"),
    "deep": ("anchor: " + "[" * 5000 + "]" * 5000, "mine.yaml:1: more than 100 levels"),
    "connections": ("connections:\n" + "- [1, 1]\n" * 100_000, "more than 10,000 values"),
    "object": ("anchor: !!python/object/apply:os.system [id]\n", "mine.yaml: is no YAML"),
    "no settings": ("- a\n", "mine.yaml: is a list, not settings"),
    "no utf-8": (b"# x\nanchor: \xff\n", "mine.yaml:2: is no UTF-8"),
    "nul": (b"# x\nanchor: a\0\n", "mine.yaml:2: holds a NUL"),
    "environment": ("anchor: ${oc.env:MY_TOKEN}\n", "${oc.env:MY_TOKEN} is not read"),
    "environment with a default": ("anchor: x-${oc.env:MY_TOKEN,none}\n", "${oc.env:MY_TOKEN} is not read"),
    "environment, written indirectly": ("seed: 1\nanchor: ${oc.${num}:MY_TOKEN}\nnum: env\n", "is not read"),
    "environment, decoded": ("anchor: ${oc.decode:'${oc.env:MY_TOKEN}'}\n", "is not read"),
}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets_that_cannot_be_read_are_refused_in_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    content, message = PRESETS[name]
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "other.yaml").write_text("defaults:\n- mine\n")
    (tmp_path / "compose" / "mine.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    said = refused(lambda: load_config(ComposeConfig, "compose/mine", [], tmp_path))
    assert message in said and SECRET not in said
    # Others in the folder are none the worse for it.
    (tmp_path / "compose" / "good.yaml").write_text("\ufeffanchor: a\naugs: [b]\n")
    assert load_config(ComposeConfig, "compose/good", [], tmp_path).anchor == "a"
    assert {"compose/mine", "compose/good"} <= {preset.name for preset in list_presets(tmp_path)}


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    "override",
    ["anchor=${oc.env:MY_TOKEN}", "+anchor='${oc.env:MY_TOKEN}'", "augs=[a,'x${oc.env:MY_TOKEN}']"]
    + ["connections=" + "[" * 1500 + "]" * 1500, "connections=[" + "[1,1]," * 20_000 + "]"],
)
def test_overrides_that_cannot_be_read_are_refused_in_one_line(override: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", SECRET)
    assert SECRET not in refused(lambda: load_config(ComposeConfig, "compose/default", [override]))


def test_the_environment_is_read_again_by_who_called(monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    monkeypatch.setenv("MY_TOKEN", SECRET)
    load_config(ComposeConfig, "compose/default", ["anchor=a"])
    assert OmegaConf.create({"a": "${oc.env:MY_TOKEN}"}).a == SECRET


def test_many_connections_are_refused_in_one_line() -> None:
    for pairs in ([[1, 1]] * 100_000, [[0, n] for n in range(100_000)], [[[0, 0]]] * 100_000):
        refused(lambda pairs=pairs: resolve_connections(pairs, [4], 4))


def test_settings_of_a_run_that_grow_without_end_count_as_damaged(tmp_path: Path, capsys: Any) -> None:
    with Run.start(tmp_path / "run", kind="train", config={"a": 1}) as run:
        run.finish()
    (tmp_path / "run" / "config.yaml").write_text(bomb())
    assert read_settings(tmp_path / "run") is None
    assert main(["show", str(tmp_path / "run"), "--json"]) == 2
    assert "config.yaml:5: more than 100,000 values" in capsys.readouterr().err


LOCKS: dict[str, Callable[[Path, Path], Any]] = {
    "a link": lambda lock, other: lock.symlink_to(other),
    "a link to nothing": lambda lock, other: lock.symlink_to(other.with_name("new")),
    "a second name": lambda lock, other: lock.hardlink_to(other),
    "a FIFO": lambda lock, other: os.mkfifo(lock),
    "a folder": lambda lock, other: lock.mkdir(),
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_that_is_no_file_of_its_own_is_not_opened(tmp_path: Path, name: str) -> None:
    other = tmp_path / "precious"
    other.write_text("kept")
    (tmp_path / "run").mkdir()
    LOCKS[name](tmp_path / "run" / ".lock", other)
    said = refused(lambda: Run.start(tmp_path / "run", kind="train", config={}))
    assert ".lock: is no lock file" in said
    assert other.read_text() == "kept" and not (tmp_path / "new").exists()


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_files_are_readable_as_the_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a", "x")
        write_bytes(tmp_path / "b", b"x", durable=False)
        append_jsonl(tmp_path / "c", [{}])
        with Run.start(tmp_path / "run", kind="train", config={}) as run:
            run.finish()
    finally:
        os.umask(before)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o666 & ~mask}


# What a file of a run holds instead of what it should.
DAMAGED: list[tuple[str, bytes]] = [
    (name, content)
    for name in ("run.json", "metrics.json", "progress.json")
    for content in (b"", b"{", b"\xff\xfe", b"\0" * 40, b"[]", b"7", b'{"a": ' + b"[" * 500, b"{}")
]
DAMAGED += [
    ("train_log.jsonl", line + b'\n{"step": 2}\n')
    for line in (b"{", b"\xff", b"\0\0", b"[1]", b'{"step": "1"}', b'{"step": 1, "loss": [1]}', b"[" * 500)
]
DAMAGED += [
    ("run.json", b'{"kind": "train", "status": "running", "%s": %s}' % (name, value))
    for name, value in ((b"seconds", b'"x"'), (b"hardware", b"[]"), (b"command", b'"x"'), (b"versions", b"7"))
]


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_damaged_files_of_a_run_are_named(tmp_path: Path, capsys: Any, name: str, content: bytes) -> None:
    path = tmp_path / "run"
    with Run.start(path, kind="train", config={"a": 1}) as run:
        run.append_jsonl({"step": 1, "loss": 1.0})
        run.write_json("metrics.json", {"metrics": {}})
        run.report_progress("training", 1, 1)
    (path / name).write_bytes(content)
    assert main(["show", str(path)]) == 2
    said = capsys.readouterr().err
    assert str(path / name) in said and said.count("\n") == 1
    if name == "run.json":
        refused(lambda: read_run(path))
        assert main(["ls", "runs", str(tmp_path)]) == 0 and "damaged" in capsys.readouterr().out
