"""`calmctl copy`: the copy is what was copied, wherever it lies, and the command that is printed runs it."""

import shlex
from pathlib import Path

import pytest

from calmctl.cli.configurations import CONFIGURATIONS, group_of
from calmctl.cli.main import main
from calmctl.config import load_config
from calmctl.presets import list_presets


def printed_command(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Copy a preset, and return the words of the command that is printed, which is the copy's first line."""
    assert main(["copy", *words]) == 0
    command = capsys.readouterr().out.strip()
    assert Path(words[1]).read_text().startswith(f"# {command}\n")
    return shlex.split(command)


def settings_of(command: list[str], group: str) -> object:
    """Return the settings that a command chooses by its options."""
    given = dict(zip(command, command[1:], strict=False))
    folder, file = (Path(given[name]) if name in given else None for name in ("--config-dir", "--config"))
    configuration = next(each for each in CONFIGURATIONS.values() if each.group == group)
    preset = f"{group}/{given.get('--preset', configuration.preset)}"
    return load_config(configuration.schema, preset, (), folder, file)


# `smoke` builds on a preset that it names by its place in its own folder.
@pytest.mark.parametrize("preset", ["compose/kv/tiny", "compose/kv/smoke", "train/ntl/aug_tiny", "reproduce/ntl/tiny"])
@pytest.mark.parametrize(
    "place",
    [
        "my presets/{group}/mine.yaml",
        "{preset}.yaml",
        "{group}/more/mine.yaml",
        "m.yaml",
        "{group}/so me/it's.yaml",
        "it's/{group}/a, b.yaml",
    ],
)
def test_a_copy_runs_by_the_command_that_is_printed(
    preset: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    group = group_of(preset)
    command = printed_command(capsys, preset, place.format(group=group, preset=preset))
    assert command[: group.count("/") + 2] == ["calmctl", *group.split("/")]
    schema = next(each.schema for each in CONFIGURATIONS.values() if each.group == group)
    assert settings_of(command, group) == load_config(schema, preset)


@pytest.mark.parametrize(
    "text",
    [
        "every: 3\n",
        "# Don't change this\nevery: 3\n",
        "# calmctl compose -p mine --out x 'no end\nevery: 3\n",
        "# what works\ndefaults: [other, _self_]\nnum: 1\n",
        'defaults:\n- _self_\n- "other"  # and nothing else\n',
        "defaults:\n- optional kv@bridge: bridges\n- /compose/other@_here_\n",
    ],
)
def test_presets_of_ones_own_are_copied_as_they_are_written(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in {"mine": text, "other": "every: 3\n", "kv/bridges": "rotary: true\n"}.items():
        file = Path(f"own/compose/{name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    (mine,) = (each for each in list_presets(Path("own")) if each.name == "compose/mine")
    command = printed_command(capsys, "compose/mine", "new.yaml", "--config-dir", "own")
    assert command[:4] == ["calmctl", "compose", "--config", "new.yaml"]
    schema = CONFIGURATIONS["compose"].schema
    config = load_config(schema, "compose/mine", config_dir=Path("own"))
    assert settings_of(command, "compose") == config and config.every == 3  # type: ignore[attr-defined]
    assert mine.command in ("", text.partition("\n")[0].removeprefix("# "))


def test_what_cannot_be_copied_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own/compose/kv").mkdir(parents=True)
    Path("own/compose/kv/broken.yaml").write_text("defaults: [a\n")
    Path("old.yaml").touch()
    for preset, file, said in (
        ("compose/default", "old.yaml", "there is such a file already"),
        ("compose/default", "mine.txt", "a preset is a .yaml file"),
        ("compose/none", "new.yaml", "choices in compose"),
        ("compose/kv/broken", "new.yaml", "broken.yaml: is no YAML"),
    ):
        assert main(["copy", preset, file, "--config-dir", "own"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and said in error, error
        assert not Path("new.yaml").exists()
