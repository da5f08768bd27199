"""A dry run refuses what its run refuses: in the same line, with exit code 2, and it writes nothing."""

import json
import re
import shlex
import shutil
from collections.abc import Collection
from pathlib import Path

import pytest

from calmctl.cli.main import main
from calmctl.runs.run import read_run
from tests.code_tree import write_tree
from tests.models import llama
from tests.ntl_corpora import write_flores, write_ntrex, write_seed
from tests.task_data import byte_tokenizer, write_data, write_models

# Every command that has a dry run, such that it would run.
COMMANDS = {
    "data kv": "data kv --preset tiny",
    "data ntl": "data ntl --preset smoke --data data",
    "data code": "data code --preset smoke --source source --tests data",
    "data reasoning": "data reasoning --data data/commonsense files=[asked.jsonl] validation_rows=1",
    "train": "train aug --preset further --base models/plain --data rows.jsonl train.steps=1 train.packing=false",
    "compose": "compose --anchor models/plain --aug models/plain --data rows.jsonl train.steps=1 every=1",
    "baseline": "baseline lora --anchor models/plain --data rows.jsonl --parameters 2000 train.steps=1",
    "eval": "eval gsm8k --model models/plain --data data/gsm8k --limit 1",
    "score": "score gsm8k --data data/gsm8k --predictions predictions.jsonl",
    "reproduce kv": "reproduce kv --preset smoke",
    "reproduce ntl": "reproduce ntl --preset smoke --data data",
    "reproduce code": "reproduce code --preset smoke --source source --tests data --allow-code-execution",
}
TRAINING = ("train", "compose", "baseline")
LAYOUTS = ("reproduce kv", "reproduce ntl", "reproduce code")

# commands, what is added to them (of options given twice the last counts), what is said
REFUSED = [
    (COMMANDS, "--preset nothing", "nothing"),
    (COMMANDS, "no_such_setting=1", "no_such_setting"),
    (COMMANDS, "--out rows.jsonl", r"rows\.jsonl"),
    (COMMANDS, "--out rows.jsonl/below", r"rows\.jsonl"),
    (COMMANDS, "--out data", "data"),
    (("train", "compose", "baseline", "eval", "score", "data ntl", "reproduce ntl"), "--data nowhere", "nowhere"),
    (("data code",), "--source nowhere", "nowhere"),
    (("data code", "reproduce code"), "--tests nowhere", "nowhere"),
    (("reproduce code",), "data.sources=[nowhere]", "nowhere"),
    (TRAINING, "--data other.jsonl", "prompt|text"),
    (TRAINING, "--data broken.jsonl", "broken.jsonl"),
    (TRAINING, "--data empty.jsonl", "empty.jsonl"),
    (TRAINING, "train.report_to=[nothing]", "report_to='nothing' is not one of"),
    (TRAINING, "train.precision=fp7", "precision"),
    (("compose",), "attention=nothing", "attention"),
    (("compose",), "segmentation=words", "segmentation=words: expected one of auto, own, chunks"),
    (("compose",), "--marker nothing", "two tokens"),
    (LAYOUTS, "compose.segmentation=words", "segmentation=words: expected one of"),
    (LAYOUTS, "compose.aug_reads=words", "aug_reads=words: expected one of"),
    (("compose",), "attention=flash_attention_2", "flash"),
    (TRAINING, "train.patience=2 train.validation_share=0 train.keep_best=false", "patience"),
    (TRAINING, "train.betas=[1.5,0.9]", "betas"),
    (TRAINING, "train.weight_decay=-1", "weight_decay"),
    (("compose",), "train.momentum=-1", "momentum"),
    (("compose",), "train.hold_share=3", "hold_share"),
    (("compose",), "train.curriculum.field=level", "level"),
    (("compose",), "train.curriculum.field=level train.curriculum.final_weights=[0,0,0,0,0]", "final_weights"),
    (("compose",), "--data texts.jsonl train.packing=true aug_reads=prompt", "packing"),
    (("compose",), "--data open.jsonl", "open_ended"),
    (("baseline",), "--parameters 30", "cannot be had"),
    (("baseline",), "--anchor models/small", "token id"),
    (("train",), "--base models/small", "token id"),
    (("reproduce kv",), "compose.bridge.num_heads=7", "num_heads"),
    (("reproduce kv",), "--ablations baseline.train.patience=1", "patience"),
    (TRAINING, "train.lr=-1", "lr"),
    (TRAINING, "train.batch_size=0", "batch_size"),
    ((*TRAINING, *LAYOUTS), "--nproc-per-node 0", "nproc"),
    (("compose", "baseline"), "--anchor nowhere", "nowhere"),
    (("compose",), "--aug nowhere", "nowhere"),
    (("train",), "--base nowhere", "nowhere"),
    (("train", "compose", "baseline"), "--validation nowhere.jsonl", "nowhere"),
    (("eval",), "--model nowhere", "nowhere"),
    (("eval",), "handover=nowhere.jsonl", "nowhere"),
    (("eval",), "mix=./nowhere", "nowhere"),
    (("eval",), "--anchor ./nowhere allow_different_base=true", "nowhere"),
    (("eval", "score"), "options.shots=-1", "shots"),
    (("eval", "score"), "options.nothing=1", "nothing"),
    (("score",), "--predictions nowhere", "nowhere"),
    (("score",), "--predictions other.jsonl", "other.jsonl"),
    (("score",), "--predictions short.jsonl", "short.jsonl"),
    (("data kv",), "num_keys=999999999", "num_keys"),
    (("data kv", "data ntl"), "tokenizer=./nowhere", "nowhere"),
    (("data ntl", "reproduce ntl"), "{0}flores_languages=[xyz_Latn]", "xyz_Latn"),
    (("data ntl", "reproduce ntl"), "{0}aug.languages=[ace_Latn]", "ace_Latn"),
    (("data ntl",), "flores=null", "flores"),
    (("data reasoning",), "--data nowhere", "nowhere"),
    (("data reasoning",), "mix=all", "mix"),
    (("data reasoning",), "files=[nowhere.json]", "nowhere"),
    (("reproduce kv",), "data.num_keys=999999999", "num_keys"),
    (LAYOUTS, "compose.train.report_to=[nothing]", "report_to='nothing' is not one of"),
    (LAYOUTS, "compose.train.precision=fp7", "precision"),
    (LAYOUTS, "anchor.train.optimizer=nothing", "optimizer"),
    (("reproduce kv",), "compose.train.patience=2", "patience"),
]  # fmt: skip


def is_slow(name: str, names: Collection[str]) -> bool:
    """Tell whether a command leads through what another one of its row leads through as well, or takes long."""
    return name in LAYOUTS or (name in ("train", "baseline") and "compose" in names)


CASES = [
    pytest.param(name, added, said, id=f"{name}: {added}", marks=pytest.mark.slow if is_slow(name, names) else ())
    for names, added, said in REFUSED
    for name in names
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write what the commands read."""
    folder = tmp_path_factory.mktemp("dry")
    data = write_data(folder / "data")
    shutil.rmtree(data / "flores")
    write_seed(data / "nllb_seed")
    write_ntrex(data / "ntrex")
    write_flores(data / "flores200")
    write_tree(folder / "source")
    write_models(folder / "models")
    small = llama()
    small.resize_token_embeddings(30, mean_resizing=False)
    small.save_pretrained(folder / "models" / "small")
    byte_tokenizer().save_pretrained(folder / "models" / "small")
    rows = [{"prompt": f"{row} plus one?", "completion": f" {row + 1}"} for row in range(8)]
    said = [{"id": f"test/{row}", "completion": f"#### {row}"} for row in range(9)]
    texts, unclear = [{"text": "1 + 1"}] * 4, [{**row, "meta": {"open_ended": [True]}} for row in rows]
    asked = [{"instruction": f"{row} plus one?", "output": f"{row + 1}"} for row in range(8)]
    files = {"rows": rows, "asked": asked, "other": [{"question": "1?"}], "predictions": said, "short": said[1:]}
    for name, lines in {**files, "texts": texts, "open": unclear}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "broken.jsonl").write_text('{"prompt": "1?", \n')
    (folder / "empty.jsonl").write_text("")
    return folder


@pytest.mark.parametrize("name, added, said", CASES)
def test_a_dry_run_refuses_what_its_run_refuses(name, added, said, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = listing(folder)
    out = folder / "out"
    section = "data." if name.startswith("reproduce") else ""
    command = [*shlex.split(COMMANDS[name]), "--out", "out", *shlex.split(added.format(section))]
    lines = []
    for dry_run in (True, False):
        code = main([*command, *(["--dry-run"] if dry_run else [])])
        captured = capsys.readouterr()
        lines.append(captured.err.splitlines()[-1])
        assert (code, captured.out) == (2, ""), lines
        assert {path for path in listing(folder) if out not in (path, *path.parents)} == before
        assert not out.exists() or (not dry_run and read_run(out).status == "failed")
        shutil.rmtree(out, ignore_errors=True)
    assert lines[0] == lines[1]
    assert re.search(said, lines[0])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_writes_nothing(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = listing(folder)
    assert main([*shlex.split(COMMANDS[name]), "--out", "out", "--dry-run"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out and listing(folder) == before


def listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))
