"""Datasets of the hub: the columns, configurations and splits that each task expects, read by `datasets` itself.

The hub is a folder here, with a repository's Parquet files and README.md; no network is asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from calmctl.cli.main import main
from data_builders import hub
from data_builders.benchmarks.flores import ROWS, read_flores
from data_builders.benchmarks.reasoning_hub import HUB_SETS
from data_builders.benchmarks.reasoning_rows import find_set
from data_builders.errors import UserError
from evals import TASKS
from evals.codexglue import CodeXGLUETask
from evals.flores import FloresTask
from evals.gsm8k import GSM8KTask
from evals.humaneval import HumanEvalTask
from evals.mbpp import MbppTask
from evals.mgsm import MGSM_WORDINGS, MGSMTask
from evals.reasoning import ArithmeticTask, CommonsenseTask
from tests.commonsense_rows import SETS, made
from tests.test_code_tasks import HUMANEVAL_ROW, mbpp_row, score, write
from tests.test_codexglue import row as function_row

Repository = dict[str, dict[str, list[dict[str, Any]]]]
PLUS_TEST = """
import numpy as np

def assertion(out, exp, atol):
    np.testing.assert_allclose(out, exp, atol=atol)

inputs = [[1], [2.5]]
results = [{0}]
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion({1}(*inp), exp, 1e-6)
"""


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    hub._load.cache_clear()
    datasets.disable_progress_bars()


def publish(folder: Path, repository: Repository) -> Path:
    """Write a repository: rows by configuration and split."""
    configs = []
    for config, splits in repository.items():
        files = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
        configs.append({"config_name": config, "data_files": files})
        for split, rows in splits.items():
            (folder / config).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / config / f"{split}-00000-of-00001.parquet")
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return folder


def texts(task: Any, data: Path, limit: int | None = None) -> list[tuple[str, str]]:
    return [(request.id, request.text) for request in task.requests(task.load(data, limit))]


def test_gsm8k(tmp_path: Path) -> None:
    rows = {
        split: [{"question": f"{split} {i}?", "answer": f"It is {i}.\n#### {i}"} for i in range(9)]
        for split in ("train", "test")
    }
    for split, lines in rows.items():
        write(tmp_path / f"{split}.jsonl", lines)
    data = publish(tmp_path / "gsm8k", {"main": rows, "socratic": rows})
    assert texts(GSM8KTask(), data) == texts(GSM8KTask(), tmp_path)
    records = GSM8KTask(shots=0).load(data, 2)
    (name, sha256), *_ = records[0].set.files.items()
    assert name == f"{data} (main) test, its rows" and len(sha256) == 64


def test_mgsm(tmp_path: Path) -> None:
    def config(language: str) -> dict[str, list[dict[str, Any]]]:
        wording = MGSM_WORDINGS[language]
        worked = {"question": f"{wording.question}1 + 1?", "answer": f"{wording.answer} 2.", "answer_number": 2}
        problems = [{"question": f"{i}?", "answer": None, "answer_number": i} for i in range(250)]
        return {"train": [worked] * 2, "test": problems}

    data = publish(tmp_path / "mgsm", {language: config(language) for language in ("de", "ja")})
    asked = dict(texts(MGSMTask(shots=1), data, 3))
    assert list(asked) == ["de/0", "de/1", "de/2", "ja/0", "ja/1", "ja/2"]
    assert asked["de/2"] == (
        "Frage: 1 + 1?\nSchritt-für-Schritt-Antwort: 2.\n\nFrage: 2?\nSchritt-für-Schritt-Antwort:"
    )
    with pytest.raises(UserError, match=r"as a dataset not usable \(BuilderConfig 'fr' not found"):
        MGSMTask(languages=("fr",)).load(data)
    bare = config("de")
    bare["train"] = [{"question": "1 + 1?", "answer": "2.", "answer_number": 2}]
    with pytest.raises(UserError, match="a worked example in de lacks its labels 'Frage:' and"):
        MGSMTask(shots=1).load(publish(tmp_path / "bare", {"de": bare}))


def test_humaneval_and_its_plus(tmp_path: Path) -> None:
    base = publish(tmp_path / "base", {"openai_humaneval": {"test": [HUMANEVAL_ROW]}})
    task = HumanEvalTask(allow_code_execution=True)
    assert score(task, base, HUMANEVAL_ROW["canonical_solution"]).metrics == {"pass@1": 100.0}
    test = f"def check(candidate):\n{PLUS_TEST.format('2, 5.0', 'candidate')}".replace("\n", "\n    ")
    plus_data = publish(tmp_path / "plus", {"default": {"test": [HUMANEVAL_ROW | {"test": test}]}})
    plus = HumanEvalTask(subset="plus", allow_code_execution=True)
    assert score(plus, plus_data, "    return x + x\n").metrics == {"pass@1": 100.0}
    assert score(plus, plus_data, "    return x + 1\n").metrics == {"pass@1": 0.0}
    for wrong, data in ((task, plus_data), (plus, base)):
        with pytest.raises(UserError, match=r"is (not )?HumanEval\+"):
            wrong.load(data)


def test_mbpp_in_its_three_forms(tmp_path: Path) -> None:
    rows = [mbpp_row(number) for number in (2, 3, 4, 11, 510, 511, 601)]
    own = {"prompt": rows[:3], "test": rows[3:5], "validation": rows[5:6], "train": rows[6:]}
    for each in rows:
        each["challenge_test_list"] = [""]  # a column of nothing but empty lists has no type in Parquet
    sanitized = [
        {k: v for k, v in r.items() if k not in ("text", "test_setup_code")}
        | {"prompt": r["text"], "test_imports": [""]}
        for r in rows
    ]
    splits = {split: [sanitized[rows.index(r)] for r in found] for split, found in own.items()}
    data = publish(tmp_path / "mbpp", {"full": own, "sanitized": splits})
    full = MbppTask(allow_code_execution=True)
    assert texts(full, data) == texts(full, write(tmp_path / "mbpp.jsonl", rows))
    file = tmp_path / "sanitized-mbpp.json"
    file.write_text(json.dumps(sanitized))
    task = MbppTask(subset="sanitized", allow_code_execution=True)
    assert texts(task, data) == texts(task, file)

    solved = {"task_id": 2, "prompt": "Double it.", "code": "def double(x):\n  return 2 * x", "source_file": ""}
    solved |= {"test_imports": [""], "test_list": [f"assert double({x}) == {2 * x}" for x in (1, 2, 3)]}
    problem = solved | {"test": PLUS_TEST.format("2, 5.0", "double")}
    plus_data = publish(tmp_path / "plus", {"default": {"test": [problem]}})
    plus = MbppTask(subset="plus", shots=0, allow_code_execution=True)
    assert score(plus, plus_data, "def double(x): return x + x").metrics == {"pass@1": 100.0}
    assert score(plus, plus_data, "def double(x): return [0, 2, 4, 6][x]").metrics == {"pass@1": 0.0}


def test_codexglue(tmp_path: Path) -> None:
    def rows(language: str, split: str) -> list[dict[str, Any]]:
        return [function_row(language, f"{split}{letter}") for letter in "abcd"]

    folder = tmp_path / "files"
    for language in ("python", "go"):
        for split in ("test", "valid"):
            write_rows(folder / language / f"{split}.jsonl", rows(language, split))
    repository = {
        each: {"train": rows(each, "train"), "validation": rows(each, "valid"), "test": rows(each, "test")}
        for each in ("go", "python")
    }
    data = publish(tmp_path / "hub", repository)
    assert texts(CodeXGLUETask(), data, 2) == texts(CodeXGLUETask(), folder, 2)
    files = CodeXGLUETask().load(data, 1)[0].set.files
    assert sorted(files) == [f"{data} (python) {split}, its rows" for split in ("test", "validation")]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, rows)


def test_flores_plus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: dict[str, list[dict[str, Any]]] = {
        split: [
            {"id": i, "iso_639_3": code, "iso_15924": script, "glottocode": "", "text": f"{code} {split} {i}"}
            for code, script in (("eng", "Latn"), ("cmn", "Hans"))
            for i in range(count)
        ]
        for split, count in ROWS.items()
    }
    data = publish(tmp_path / "plus", {"default": splits, "eng_Latn": splits})
    # What only an id reaches is reached through the folder that stands for it.
    monkeypatch.setattr("data_builders.benchmarks.flores.is_hub_id", lambda path: True)
    flores = read_flores(data, ["zho_Hans"], always=["eng_Latn"])
    assert flores.release == "flores_plus" and flores.sentences["zho_Hans"]["devtest"][5] == "cmn devtest 5"
    assert list(flores.files) == [f"{data} (default) {split}, its rows" for split in ROWS]
    assert len(FloresTask(languages=("zho_Hans",)).load(data, 4)) == 4


def test_what_is_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("openai/gsm8k").mkdir(parents=True)
    for name in ("x/y", "x/y.z", "a/b@refs/pr/1"):
        assert hub.is_hub_id(Path(name))
    for name in ("openai/gsm8k", "openai/typo", "x/y.csv", "x/y.jsonl.gz", "gsm8k", "/a/b"):
        assert not hub.is_hub_id(Path(name))
    assert hub._locate(Path("a/b@refs/pr/1")) == ("a/b", "refs/pr/1")


def test_data_that_is_not_what_it_should_be(tmp_path: Path) -> None:
    rows = [{"question": "1?", "answer": "#### 1"}]
    other = publish(tmp_path / "other", {"main": {"train": rows}})
    with pytest.raises(UserError, match=r"other \(main\) has no split 'test', only train"):
        GSM8KTask().load(other)
    with pytest.raises(UserError, match=r"no column 'answer'; is it the right dataset"):
        GSM8KTask().load(publish(tmp_path / "columns", {"main": {"test": [{"question": "1?"}]}}))
    with pytest.raises(UserError, match="no usable 'answer'"):
        GSM8KTask().load(publish(tmp_path / "types", {"main": {"test": [{"question": "1?", "answer": 1}]}}))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "test.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="torn: as a dataset not usable") as raised:
        GSM8KTask().load(tmp_path / "torn")
    assert "\n" not in str(raised.value)


LOCAL = ("kv", "text", "rows", "arithmetic", "commonsense")


@pytest.mark.parametrize("name", [name for name in TASKS if name not in LOCAL])
def test_a_hub_that_cannot_be_reached_is_one_line(name: str) -> None:
    options = {"allow_code_execution": True} if name in ("humaneval", "mbpp") else {}
    with pytest.raises(UserError) as raised:
        TASKS[name](**options).load(Path("some-org/some-data"))
    message = str(raised.value)
    assert message.startswith("some-org/some-data: no such path, and as a dataset of the hub out of reach (")
    assert "\n" not in message and message.endswith("download it where there is a network, and name the folder")


def test_the_command_takes_a_copy_and_says_what_is_out_of_reach(tmp_path: Path, capsys: Any) -> None:
    rows = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(2)]
    data = publish(tmp_path / "gsm8k", {"main": {"test": rows}})
    predictions = write(tmp_path / "p.jsonl", [{"id": f"test/{i}", "completion": "#### 1"} for i in range(2)])
    command = ["score", "gsm8k", "--shots", "0", "--json", "--predictions", str(predictions)]
    assert main([*command, "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["exact_match"] == 50.0
    assert main([*command, "--data", "some-org/some-data", "--out", str(tmp_path / "none")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "some-org/some-data: no such path, and as a dataset of the hub out of reach" in line


def test_commonsense(tmp_path: Path) -> None:
    """A folder with copies of the sets' own data asks what a folder in the published layout asks, in both protocols."""
    layout, hub_folder = tmp_path / "layout", tmp_path / "hub"
    for name in SETS:
        (layout / name).mkdir(parents=True)
        (layout / name / "test.json").write_text(json.dumps([each.published() for each in made(name)]))
        source = HUB_SETS[name]
        rows = {source.split: [each.original() for each in made(name)]}
        publish(hub_folder / name, {source.config or "default": rows})
    for task in (CommonsenseTask(), CommonsenseTask(protocol="likelihood")):
        found, expected = task.requests(task.load(hub_folder, 4)), task.requests(task.load(layout, 4))
        assert [(each.id, each.text) for each in found if not each.id.startswith("hellaswag")] == [
            (each.id, each.text) for each in expected if not each.id.startswith("hellaswag")
        ]
        # Only the set's own data have the halves of HellaSwag's contexts apart; ours end in a space, made without one.
        assert len(found) == len(expected)
    assert [r.problem.answer for r in CommonsenseTask().load(hub_folder, None)] == [
        r.problem.answer for r in CommonsenseTask().load(layout, None)
    ]
    wrong = [{"goal": "x", "sol1": "a", "sol2": "b", "label": 2}]
    publish(tmp_path / "wrong" / "piqa", {"default": {"validation": wrong}})
    with pytest.raises(UserError, match="piqa, validation row 0: it has 2 choices and answer 3"):
        CommonsenseTask(sets=("piqa",)).load(tmp_path / "wrong", None)


def test_a_copy_is_not_taken_for_another_one_nor_for_an_earlier_state_of_itself(tmp_path: Path) -> None:
    def rows(folder: Path, text: str) -> list[Any]:
        published = {"default": {"validation": [{"text": text}]}}
        found = hub.read_hub(publish(tmp_path / folder, published), None, ("validation",), {"text": str})[0]
        hub._load.cache_clear()
        return [row["text"] for row in found]

    assert [rows(Path(name), text) for name, text in (("a/piqa", "one"), ("b/piqa", "two"), ("a/piqa", "three"))] == [
        ["one"], ["two"], ["three"],
    ]  # fmt: skip


def test_halves_of_hellaswag_are_joined_as_the_harness_joins_them(tmp_path: Path) -> None:
    row = {"activity_label": "Tea", "ctx_a": "A cup [x] is full.", "ctx_b": "then SHE", "label": "1"}
    row |= {"endings": ["a", "b", "c", "d"]}
    publish(tmp_path / "hellaswag", {"default": {"validation": [row]}})
    task = CommonsenseTask(sets=("hellaswag",), protocol="likelihood")
    (first, *_) = task.requests(task.load(tmp_path, None))
    assert first.text == "Tea: A cup is full. Then she" and first.reference == " a"


def test_the_hub_itself_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_set(Path("hub"), SETS["ARC-Easy"]) == Path("allenai/ai2_arc")
    with pytest.raises(UserError, match="hub/MultiArith holds no test.json; .*|hub holds none of"):
        ArithmeticTask().load(Path("hub"), None)
    (tmp_path / "hub").mkdir()
    assert find_set(Path("hub"), SETS["ARC-Easy"]) is None
