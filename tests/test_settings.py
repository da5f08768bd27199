"""Settings can be found: each has a meaning, wrong names are put right, files and copies give what they hold."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from calmctl.cli.configurations import CONFIGURATIONS, group_of
from calmctl.cli.main import main
from calmctl.config import load_config, to_dict, to_yaml
from calmctl.errors import UserError
from calmctl.modeling.bases.sources import load_base
from calmctl.modeling.options import BridgeConfig
from calmctl.modeling.stored.warm_start import parts_sha256
from calmctl.presets import list_presets
from calmctl.settings import list_settings, nearest
from calmctl.training.configs import ComposeConfig
from data_builders import hub
from tests.settings_page import PAGE, page
from tests.structure import ROOT

COMMANDS = pytest.mark.parametrize("command", CONFIGURATIONS)
PRESETS = {preset.name for preset in list_presets()}


@COMMANDS
def test_every_setting_has_a_meaning(command: str) -> None:
    settings = list(list_settings(CONFIGURATIONS[command].schema))
    assert not [setting.name for setting in settings if not setting.meaning]
    assert len({setting.name for setting in settings}) == len(settings)


@COMMANDS
def test_the_table_of_configurations_holds(command: str) -> None:
    configuration = CONFIGURATIONS[command]
    groups = [each.name for each in list_settings(configuration.schema) if each.is_group and "." not in each.name]
    assert configuration.groups == ", ".join(groups)
    assert f"{configuration.group}/{configuration.preset}" in PRESETS


def test_every_preset_belongs_to_a_command() -> None:
    assert {group_of(name) for name in PRESETS} == {each.group for each in CONFIGURATIONS.values()}


def test_defaults_are_those_of_the_fields_or_of_an_instance() -> None:
    known = {setting.name: setting for setting in list_settings(ComposeConfig)}
    plain, config = to_dict(ComposeConfig()), ComposeConfig(every=2, bridge=BridgeConfig(share=0.25))
    assert known["bridge.share"].default == plain["bridge"]["share"]
    assert known["train.precision"].choices == ("fp32", "bf16", "fp16")
    assert known["train"].is_group and known["train.betas"].default == plain["train"]["betas"]
    values = {setting.name: setting.default for setting in list_settings(ComposeConfig, config)}
    assert (values["every"], values["bridge.share"], values["bridge.norm"]) == (2, 0.25, False)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("lr", ["train.lr"]),
        ("learning_rate", ["train.lr"]),
        ("train.LR", ["train.lr"]),
        ("Train.lr", ["train.lr"]),
        ("bridge.lr", ["train.lr"]),
        ("step", ["train.steps"]),
        ("num-heads", ["bridge.num_heads"]),
        ("bridges.rotary", ["bridge.rotary"]),
        ("batchsize", ["train.batch_size"]),
        ("anchr", ["anchor"]),
        ("zzz", []),
    ],
)
def test_an_unknown_setting_suggests_the_nearest_in_every_group(path: str, found: list[str]) -> None:
    assert nearest(ComposeConfig, path) == found


def test_the_nearest_setting_is_named_by_overrides_files_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"unknown setting 'lr' \(did you mean 'train.lr'\?\)"):
        load_config(ComposeConfig, "compose/default", ["lr=1"])
    file = tmp_path / "mine.yaml"
    file.write_text("bridge: {num-heads: 2}\n")
    with pytest.raises(UserError, match=r"mine.yaml: unknown setting 'bridge.num-heads' \(did you mean 'bridge.num_h"):
        load_config(ComposeConfig, "compose/default", file=file)
    for key, said in (
        ("step", "(did you mean 'train.steps'?); valid at the top level: anchor, "),
        ("TRAIN.LR", "did you mean 'train.lr'"),
        ("train.lrr", "(did you mean 'train.lr'?); valid in 'train': accumulation, "),
        ("train.", "unknown setting 'train.'; valid in 'train': accumulation, "),
        ("train.lr.x", "train.lr is one value"),
    ):
        assert main(["settings", "compose", key]) == 2
        assert said in capsys.readouterr().err
    assert main(["settings", "compose", "columns.prompt"]) == 0  # below a dictionary there may be any
    assert capsys.readouterr().out.startswith("columns\n")


def test_the_page_of_settings_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.settings_page`"


def test_the_command_prints_defaults_values_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "train", "anchor", "train.steps", "--preset", "kv/anchor_smoke", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    config = load_config(CONFIGURATIONS["train"].schema, "train/kv/anchor_smoke")
    assert (told["name"], told["default"], told["preset"]) == ("train.steps", 1000, to_dict(config)["train"]["steps"])
    assert main(["settings", "compose", "bridge"]) == 0
    names = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(" ")]
    assert names == [each.name for each in list_settings(ComposeConfig) if each.name.startswith("bridge")]
    for words in ([], ["nothing"], ["compose", "train", "lr"]):
        assert main(["settings", *words]) == 2
        assert "data kv, " in capsys.readouterr().err


@pytest.mark.parametrize("width", [45, 120])
def test_settings_are_wrapped_to_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["settings", "compose"]) == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
    longest = max(len(line) for line in lines if "=" not in line)  # `a=b` is never broken
    assert width - 20 < longest <= width
    assert all(line == line.rstrip() for line in lines)


def stored(folder: Path, config: object) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder / "config.yaml"


def test_the_settings_of_a_run_read_back_as_they_were_and_overrides_win(tmp_path: Path) -> None:
    text = "a ${b} 'c' \"d\"\n{e: 1}"
    config = load_config(ComposeConfig, "compose/kv/tiny", ["seed=7", "markers.k='<b>'"])
    config = replace(config, dataset=text, augs=("${x}", "null", "1e3"))
    file = stored(tmp_path / "it's a run", config)
    assert load_config(ComposeConfig, "compose/default", file=file) == config
    changed = load_config(ComposeConfig, "compose/default", ["seed=3", "bridge.share=1"], file=file)
    assert changed == replace(config, seed=3, bridge=replace(config.bridge, share=1.0))


@pytest.mark.parametrize("command", ["data kv", "data ntl", "data code", "eval", "baseline", "slurm", "reproduce kv"])
def test_the_stored_settings_of_every_command_read_back(command: str, tmp_path: Path) -> None:
    configuration = CONFIGURATIONS[command]
    name = f"{configuration.group}/{configuration.preset}"
    config = load_config(configuration.schema, name)
    assert load_config(configuration.schema, name, file=stored(tmp_path / "run", config)) == config


@pytest.mark.parametrize(
    ("content", "every"),
    [
        (b"", 4),
        (b"every: 2\r\nseed: 1\r\n", 2),
        (b"\xef\xbb\xbfevery: 2\n", 2),
        (b"defaults: [kv/tiny@_here_, _self_]\nseed: 1\n", 1),
    ],
)
def test_a_file_of_settings_may_be_written_anywhere_and_build_on_presets(
    content: bytes, every: int, tmp_path: Path
) -> None:
    file = tmp_path / "a file, of mine.yml"
    file.write_bytes(content)
    assert load_config(ComposeConfig, "compose/default", file=file).every == every


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--config", "."], ["--config .: a folder", "config.yaml"]),
        (["--config", "list.yaml"], ["list.yaml", "not settings"]),
        (["--config", "broken.yaml"], ["broken.yaml"]),
        (["--config", "other.yaml"], ["other.yaml: unknown setting 'num_keys'"]),
        (["--config", "twice.yaml"], ["duplicate key every", 'in "twice.yaml", line 2']),
        (["--config", "dotted.yaml"], ["dotted.yaml: 'train.lr'", "as train: {lr: ...}"]),
        (["--config", "good.yaml", "--preset", "tiny"], ["--preset tiny and --config good.yaml: give one"]),
    ],
)
def test_files_that_hold_no_settings_are_refused_in_one_line(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"list": "- 1\n", "broken": "a: [1\n", "other": "num_keys: 3\n", "good": "every: 2\n"}
    files |= {"twice": "every: 2\nevery: 3\n", "dotted": "train.lr: 1.0\n"}
    for name, text in files.items():
        Path(f"{name}.yaml").write_text(text)
    assert main(["compose", "--out", "x", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(word in error for word in words), error


EARLY = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from calmctl.cli.main import main
for arguments in {commands!r}:
    assert main(arguments) == 2
assert main(["settings", "compose", "--json"]) == 0
"""
MISTAKES = {
    "compose --anchor ./a --aug b --data here.jsonl --out x": "./a: no such folder",
    "compose --anchor a/b/c --aug b --data here.jsonl --out x": "a/b/c: no such folder",
    "compose --anchor ./models/typo --aug b --data here.jsonl --out x": "./models/typo: no such folder",
    "compose --anchor models/typo --aug b --data here.jsonl --out x": "models/typo: no such folder in models; if",
    "compose --anchor models/a@main --aug models/no --data here.jsonl --out x": "models/no: no such folder in models",
    "compose --anchor a.gguf --aug b --data here.jsonl --out x": "a.gguf: no such file",
    "compose --anchor a --aug b --data gone.jsonl --out x": "gone.jsonl: no such file",
    "compose --anchor a --aug b --data here.jsonl --out x lr=1": "did you mean 'train.lr'",
    "compose --aug b --data here.jsonl --out x": "anchor is not set",
    "train anchor --base ~/gone --data here.jsonl --out x": "~/gone: no such folder",
    "baseline lora --anchor ../gone --data here.jsonl --out x size=2": "../gone: no such folder",
    "baseline lara --anchor a --data here.jsonl --out x": "'lara' is not one of lora",
    "baseline lora --anchor a --data here.jsonl --out x --match gone": "gone is no run directory",
    "compose --anchor a --aug b --data here.jsonl --out x --init-from ./gone": "./gone: no such folder",
    "compose --anchor a --aug  --data here.jsonl --out x": "augs is not set",
    "eval kv --model /gone --data . --out x": "no such folder|/gone|manifest",
    "eval kv --model a --data gone --out x": "gone",
}


def test_mistakes_are_found_before_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "here.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "models").mkdir()
    code = EARLY.format(commands=[command.split(" ") for command in MISTAKES])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    for line, said in zip(done.stderr.splitlines(), MISTAKES.values(), strict=True):
        assert line.startswith("calmctl: error: ") and re.search(said, line), line


@pytest.mark.parametrize("is_reached", [True, False])
def test_without_a_network_the_hub_is_asked_once(is_reached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    asked = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append(url)
            if not is_reached:
                raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.be_offline_without_network.cache_clear()
    for _ in range(2):
        hub.be_offline_without_network()
    assert constants.HF_HUB_OFFLINE is not is_reached and asked == [constants.ENDPOINT]
    hub.be_offline_without_network.cache_clear()


def test_models_parts_and_data_of_the_hub_are_refused_at_once_without_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is asked first, the hub's library is told that there is no network; else it would try for a minute."""
    from huggingface_hub import constants

    class Session:
        def head(self, url: str, timeout: float) -> None:
            raise OSError("no route to host")

    for ask in (
        lambda: load_base("no-such/model"),
        lambda: parts_sha256("no-such/parts"),
        lambda: hub.open_hub(Path("no-such/data"), None),
        lambda: hub.hub_configs(Path("no-such/data")),
    ):
        with monkeypatch.context() as patched:
            patched.setattr("huggingface_hub.utils.get_session", Session)
            patched.setattr(constants, "HF_HUB_OFFLINE", False)
            hub.be_offline_without_network.cache_clear()
            with pytest.raises(UserError, match="no-such/.*reach"):
                ask()
            assert constants.HF_HUB_OFFLINE
    hub.be_offline_without_network.cache_clear()
