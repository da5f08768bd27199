"""What makes two runs the same: their settings by what these mean, and the places that they name."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from calmctl.config import to_yaml
from calmctl.errors import UserError
from calmctl.runs.identity import has_settings
from calmctl.runs.run import read_run
from calmctl.schema import differing_settings, meaning
from data_builders.values import read_yaml, write_json
from tests.test_runs import CONFIG, finished, start


def test_key_order_and_dataclass_or_mapping_do_not_make_another_run(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    assert start(path, config=dict(reversed(CONFIG.items()))).is_complete


def test_another_configuration_is_refused_and_the_differing_keys_named(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    changed = {"lr": 0.2, "data": {"rows": 11, "mode": "natural"}, "layers": [1, 3]}
    with pytest.raises(UserError) as caught:
        start(path, config=changed)
    message = str(caught.value)
    assert "lr: 0.1 -> 0.2" in message
    assert "data.rows: 10 -> 11" in message
    assert "data.mode: padded -> natural" in message
    assert "and 1 more" in message
    assert "\n" not in message


def test_settings_of_a_folder_that_was_moved_are_known_where_all_paths_were_moved_together(tmp_path: Path) -> None:
    old, root = tmp_path / "old", tmp_path / "new"
    config = {"lr": 1, "model": f"{old}/calm", "data": {"augs": [f"{old}/aug"], "seeds": [0]}, "tests": "/here/tests"}
    with start(old / "eval" / "run", config=config, command=["calmctl", "--out", f"{old}/eval/run"]) as run:
        run.finish()
    moved = config | {"model": f"{root}/calm", "data": {"augs": [f"{root}/aug"], "seeds": [0]}}
    info = read_run(old / "eval" / "run")
    assert has_settings(info, config) and not has_settings(info, moved)
    old.rename(root)
    info = read_run(root / "eval" / "run")
    assert has_settings(info, config) and has_settings(info, moved)
    assert start(info.path, config=moved).is_complete
    for changes in (
        {"lr": 2},
        {"model": f"{root}/lora"},
        {"data": {"augs": [f"{root}/aug"], "seeds": [1]}},
        {"tests": f"{root}/tests"},  # not where the others were
        {"more": 1},
    ):
        assert not has_settings(info, moved | changes), changes
    # As version 0.1.0 wrote it, and with the checksum of one that left out other settings.
    older = {key: value for key, value in info.facts.items() if key != "folder"} | {"config_sha256": "another"}
    write_json(info.path / "run.json", older)
    assert has_settings(read_run(info.path), moved)
    assert has_settings(read_run(info.path), config) and start(info.path, config=config).is_complete
    (info.path / "config.yaml").unlink()
    assert not has_settings(read_run(info.path), config)


@dataclass(frozen=True)
class Part:
    steps: int = 1
    sharding: str = field(default="none", metadata=meaning("free"))


@dataclass(frozen=True)
class Whole:
    seed: int = field(default=0, metadata=meaning(may_differ=True))
    tasks: tuple[str, ...] = field(default=("one",), metadata=meaning("comparison", may_differ=True))
    one: Part = field(default_factory=Part, metadata=meaning("comparison", asked_by=("tasks", "one")))
    other: Part = field(default_factory=Part, metadata=meaning("comparison", asked_by=("tasks", "other")))
    part: Part = field(default_factory=Part)


def test_fields_say_with_which_settings_a_run_goes_on_and_which_may_differ(tmp_path: Path) -> None:
    config, spread = Whole(), Part(sharding="fsdp")
    with start(tmp_path / "run", config=config) as run:
        run.finish()
    info = read_run(tmp_path / "run")
    assert has_settings(info, replace(config, part=spread), comparisons=True)
    more = replace(config, tasks=("one", "other"), other=Part(2), part=spread)
    assert has_settings(info, more) and not has_settings(info, more, comparisons=True)
    assert start(info.path, config=more).is_complete
    for changes in ({"seed": 1}, {"part": Part(2)}):
        with pytest.raises(UserError, match="another configuration"):
            start(info.path, config=replace(config, **changes))
    assert differing_settings(config) == ["seed", "tasks", "one.sharding", "other", "part.sharding"]
    assert differing_settings(more) == ["seed", "tasks", "one.sharding", "other.sharding", "part.sharding"]


def test_a_run_of_before_a_setting_existed_goes_on_with_its_default_and_only_then(tmp_path: Path) -> None:
    config = Whole(part=Part(2))
    with start(tmp_path / "run", config=config) as run:
        run.finish()
    info = read_run(tmp_path / "run")
    settings = read_yaml(info.path / "config.yaml")
    for old in ({key: settings[key] for key in ("seed", "part")}, {**settings, "part": {"steps": 2}}):
        (info.path / "config.yaml").write_text(to_yaml(old))
        write_json(info.path / "run.json", info.facts | {"config_sha256": "of other settings"})
        assert has_settings(read_run(info.path), config, comparisons=True)
    (info.path / "config.yaml").write_text(to_yaml({**settings, "part": {"sharding": "none"}}))
    with pytest.raises(UserError, match="by an earlier version of calmctl, which had no part.steps; choose another"):
        start(info.path, config=config)


@dataclass(frozen=True)
class Form:
    share: float = 0.5
    per_dimension: bool = field(default=True, metadata=meaning(before=False))


@dataclass(frozen=True)
class Formed:
    seed: int = 0
    form: Form = field(default_factory=Form)


def test_a_setting_that_says_what_was_done_before_it_existed_counts_so_in_older_runs(tmp_path: Path) -> None:
    with start(tmp_path / "run", config=Formed()) as run:
        run.finish()
    info = read_run(tmp_path / "run")
    write_json(info.path / "run.json", info.facts | {"config_sha256": "of other settings"})
    (info.path / "config.yaml").write_text(to_yaml({"seed": 0, "form": {"share": 0.5}}))
    with pytest.raises(UserError, match="by an earlier version of calmctl, which had no form.per_dimension; choose"):
        start(info.path, config=Formed())
    assert start(info.path, config=Formed(form=Form(per_dimension=False))).is_complete
    # A group that is newer than the run has its defaults.
    (info.path / "config.yaml").write_text(to_yaml({"seed": 0}))
    assert start(info.path, config=Formed()).is_complete
