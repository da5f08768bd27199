"""Presets compose, overrides reach every setting, and mistakes are explained in one line."""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from calmctl.config import Preset, from_dict, list_presets, load_config, to_dict, to_yaml
from calmctl.errors import UserError

# Group of presets -> the dataclass it fills. A new group needs a line here.
SCHEMAS = {
    "data/code": "data_builders.code.config:CodeDataConfig",
    "data/kv": "data_builders.kv.config:KVDataConfig",
    "data/ntl": "data_builders.ntl.config:NTLDataConfig",
    "data/reasoning": "data_builders.reasoning.config:ReasoningDataConfig",
    "train": "calmctl.training.configs:TrainConfig",
    "train/code": "calmctl.training.configs:TrainConfig",
    "train/kv": "calmctl.training.configs:TrainConfig",
    "train/ntl": "calmctl.training.configs:TrainConfig",
    "compose": "calmctl.training.configs:ComposeConfig",
    "compose/code": "calmctl.training.configs:ComposeConfig",
    "compose/kv": "calmctl.training.configs:ComposeConfig",
    "compose/ntl": "calmctl.training.configs:ComposeConfig",
    "baseline": "calmctl.baselines.configs:BaselineConfig",
    "baseline/code": "calmctl.baselines.configs:BaselineConfig",
    "baseline/kv": "calmctl.baselines.configs:BaselineConfig",
    "baseline/ntl": "calmctl.baselines.configs:BaselineConfig",
    "eval": "calmctl.evaluation.evaluating:EvalConfig",
    "score": "calmctl.evaluation.scoring:ScoreConfig",
    "slurm": "calmctl.processes.slurm:SlurmConfig",
    "reproduce/adapters": "calmctl.experiments.adapter_config:ReproduceAdaptersConfig",
    "reproduce/code": "calmctl.experiments.code:ReproduceCodeConfig",
    "reproduce/kv": "calmctl.experiments.kv_config:ReproduceKVConfig",
    "reproduce/ntl": "calmctl.experiments.ntl:ReproduceNTLConfig",
}


@dataclass(frozen=True)
class Data:
    seed: int
    rows: int = 4
    mode: Literal["padded", "natural"] = "padded"

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows={self.rows} must be at least 1; use a positive number")


@dataclass(frozen=True)
class Training:
    lr: float
    steps: int
    data: Path | None = None
    weights: tuple[float, ...] = (1.0,)
    extra: dict[str, float] = field(default_factory=dict)
    shuffle: bool = False
    name: str = "x"


@dataclass(frozen=True)
class Everything:
    data: Data
    anchor: Training
    aug: Training | None = None
    seed: int = 0


FILES = {
    "mydata/tiny": "seed: 1\nrows: 10",
    "mydata/small": "seed: 2",
    "mydata/large": "defaults:\n  - tiny\n  - _self_\nrows: 1000",
    "mytrain/base": "lr: 1e-3\nsteps: 10",
    "myall/tiny": (
        "defaults:\n  - /mydata@data: tiny\n  - /mytrain@anchor: base\n  - /mytrain@aug: base\n  - _self_\n"
        "seed: 3\naug:\n  steps: 20"
    ),
}


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a, folder"  # characters that mean something to Hydra
    for name, text in FILES.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# calmctl run {name}\n{text}\n")
    return folder


def load(conf: Path, *overrides: str) -> Everything:
    return load_config(Everything, "myall/tiny", overrides, conf)


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: preset.name)
def test_every_packaged_preset_composes_and_begins_with_its_command(preset: Preset) -> None:
    assert preset.path.read_text().startswith("# calmctl "), "the first line must be the command that runs the preset"
    assert preset.group in SCHEMAS, f"add the dataclass of {preset.group} to SCHEMAS"
    module, _, name = SCHEMAS[preset.group].partition(":")
    schema = getattr(importlib.import_module(module), name)
    config = load_config(schema, preset.name)
    assert isinstance(config, schema)


def test_a_preset_pulls_in_others_at_their_own_place(conf: Path) -> None:
    config = load(conf)
    assert config == Everything(Data(1, 10), Training(0.001, 10), Training(0.001, 20), seed=3)


def test_a_preset_builds_on_another_of_its_group_alone_and_nested(conf: Path) -> None:
    assert load_config(Data, "mydata/large", (), conf) == Data(1, 1000)
    assert load(conf, "mydata@data=large").data == Data(1, 1000)


def test_overrides_reach_settings_the_preset_does_not_mention(conf: Path) -> None:
    config = load(conf, "data.mode=natural", "anchor.weights=[1,2]", "anchor.extra.k=3", "anchor.name='a b'")
    assert config.data.mode == "natural"
    assert config.anchor.weights == (1.0, 2.0)
    assert config.anchor.extra == {"k": 3.0}
    assert config.anchor.name == "a b"


def test_values_are_converted_without_loss_or_not_at_all(conf: Path) -> None:
    config = load(conf, "anchor.steps=1e3", "anchor.lr=1", "anchor.data=some/file", "aug=null", "anchor.shuffle=true")
    assert (config.anchor.steps, config.anchor.lr) == (1000, 1.0)
    assert isinstance(config.anchor.steps, int)
    assert isinstance(config.anchor.lr, float)
    assert config.anchor.data == Path("some/file")
    assert config.aug is None
    assert config.anchor.shuffle is True


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.row=1", ["'data.row'", "did you mean 'data.rows'", "mode, rows, seed"]),
        ("nope=1", ["'nope'", "anchor, aug, data, seed"]),
        ("anchor.lr.x=1", ["anchor.lr is one value"]),
        ("data.rows=many", ["data.rows=many", "an integer"]),
        ("data.rows=1.5", ["data.rows=1.5", "an integer"]),
        ("data.rows=0", ["data: rows=0 must be at least 1"]),
        ("data.mode=other", ["data.mode=other", "padded, natural"]),
        ("anchor.shuffle=1", ["anchor.shuffle=1", "true or false"]),
        ("anchor.weights=3", ["anchor.weights=3", "a list"]),
        ("anchor.weights=[a]", ["anchor.weights[0]=a", "a number"]),
        ("anchor.lr=null", ["anchor.lr=null", "a number"]),
        ("anchor.lr=1,2", ["anchor.lr=1,2", "one value"]),
        ("anchor.lr", ["'anchor.lr'", "key=value"]),
        ("anchor.lr=[1", ["'anchor.lr=[1'"]),
        ("anchor.lr=${nowhere}", ["nowhere", "not found"]),
        ("mydata@data=huge", ["mydata/huge", "large", "small", "tiny"]),
        ("mydata@dat=tiny", ["mydata@dat", "mydata@data"]),
        ("~data.seed", ["data.seed: missing", "an integer"]),
        ("data=5", ["data=5"]),
    ],
)
def test_a_wrong_override_is_explained_in_one_line(conf: Path, override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(conf, override)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_an_unknown_preset_lists_the_choices_of_its_group(conf: Path) -> None:
    with pytest.raises(UserError, match="unknown preset 'huge'; choices in mydata: large, small, tiny"):
        load_config(Data, "mydata/huge", (), conf)
    with pytest.raises(UserError, match="no group 'nothing'; groups: .*mydata"):
        load_config(Data, "nothing/tiny", (), conf)
    with pytest.raises(UserError, match="no such folder"):
        load_config(Data, "mydata/tiny", (), conf / "missing")


@pytest.mark.parametrize(
    "name", ["my own", "it's", "a, b", "k=v", "[z]", "{w}", "${y}", "ü", "1", "null", "a(b)", "#h", "\\"]
)
def test_a_preset_may_have_any_name_and_its_group_one_that_hydra_takes(conf: Path, name: str) -> None:
    for group in ("mydata", "mydata/so me"):
        file = conf / group / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text("seed: 7\n")
    assert load_config(Data, f"mydata/{name}", (), conf) == Data(7)
    assert load_config(Data, "mydata/tiny", (), conf, conf / "mydata/so me" / f"{name}.yaml") == Data(7)
    with pytest.raises(UserError, match="'mydata/so me' cannot be a group of presets; name its folders"):
        load_config(Data, f"mydata/so me/{name}", (), conf)


def test_presets_of_the_user_come_first_and_packaged_ones_stay_reachable(
    conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calmctl.presets.conf_dir", lambda: conf)
    mine = tmp_path / "mine"
    (mine / "mydata").mkdir(parents=True)
    (mine / "mydata" / "tiny.yaml").write_text("# calmctl mine\n# A set\n# of mine\nseed: 9\n")
    assert load_config(Data, "mydata/tiny", (), mine) == Data(9)
    assert load_config(Everything, "myall/tiny", (), mine).data == Data(9)
    assert load_config(Data, "mydata/small", (), mine) == Data(2)
    presets = {preset.name: preset for preset in list_presets(mine)}
    assert list(presets) == sorted(FILES)
    assert presets["mydata/tiny"].command == "calmctl mine"
    assert presets["mydata/tiny"].description == "A set of mine"
    assert presets["mydata/tiny"].path.is_relative_to(mine)


def test_composing_leaves_a_hydra_application_around_it_alone(conf: Path) -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf), version_base=None):
        load(conf)
        assert compose("mydata/tiny") is not None


def test_yaml_reads_back_as_the_same_configuration(conf: Path) -> None:
    config = load(conf, "anchor.data=a/b", "anchor.lr=1e-5", "data.mode=natural")
    assert from_dict(Everything, yaml.safe_load(to_yaml(config))) == config
    assert to_dict(config)["anchor"]["data"] == "a/b"
