"""Every command of docs/from-csv.md, typed as it stands there, on toy models; the models then lie elsewhere."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import pytest

from calmctl.cli.main import main
from tests.forked import forked_stages
from tests.own_tokenizers import PAIRS, base

PAGE = Path(__file__).parents[1] / "docs" / "from-csv.md"
__all__ = ["forked_stages"]  # a fixture
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_stages")]


def commands() -> list[list[str]]:
    """Return the page's commands, with their variables filled in."""
    lines = PAGE.read_text().replace("\\\n", " ").splitlines()
    indented = [line.strip() for line in lines if line.startswith("    ")]
    values = dict(line.split("=", 1) for line in indented if not line.startswith("calmctl "))
    typed = [line for line in indented if line.startswith("calmctl ")]
    for name in values:
        typed = [line.replace(f"${name}", name.lower()) for line in typed]
    return [shlex.split(line)[1:] for line in typed]


def write_csv(path: Path, count: int) -> None:
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["source", "english"])
        table.writerows([f"numéro {i} :", f" number {i % 7}"] for i in range(count))


def test_every_command_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, make, kind in zip(("anchor", "aug"), PAIRS["gpt2-llama3"], ("llama", "gemma2"), strict=True):
        tokenizer = make()
        tokenizer.eos_token = tokenizer.eos_token or tokenizer.pad_token
        base(kind, tokenizer, 0).save_pretrained(name)
        tokenizer.save_pretrained(name)
    write_csv(tmp_path / "train.csv", 60)
    write_csv(tmp_path / "test.csv", 5)
    said = {}
    typed = commands()
    for place, command in enumerate(typed):
        if command[:3] == ["generate", "--model", "shared"]:  # from here on somebody else's machine
            (tmp_path / "elsewhere").mkdir()
            for name in ("anchor", "aug", "shared", "test.csv"):
                shutil.move(name, tmp_path / "elsewhere" / name)
            shutil.rmtree("runs")
            monkeypatch.chdir(tmp_path / "elsewhere")
        capsys.readouterr()
        assert main(command) == 0, (command, capsys.readouterr().err)
        said[place] = capsys.readouterr().out
    assert [command[0] for command in typed] == [
        "settings", "compose", "compose", "report", "compose", "export", "push", "generate", "eval", "chat",
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert len(rows) == 6 and len({row["run"] for row in rows}) == 6
    losses = [float(row["validation_loss"]) for row in rows]
    assert losses == sorted(losses)
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in answers] == [f"numéro {i} :" for i in range(5)]
    assert json.loads(Path("runs/scores/metrics.json").read_text())["n"] == 5
    assert all(name in said[len(typed) - 1] for name in ("anchor", "aug", "composed"))
