"""Training files: what is learned of every row, and which rows and files are refused."""

import copy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from calmctl.errors import UserError
from calmctl.modeling.loss import IGNORED
from calmctl.training.batches import Batches
from calmctl.training.examples import Examples, load_examples
from tests.additions import SETTINGS, tokenizer, write

__all__ = ["tokenizer"]


def test_only_completions_are_learned(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", {"prompt": "solve: 1 + 2 =", "completion": " 3"})
    examples = load_examples(path, tokenizer, SETTINGS)
    batch = Batches(examples, SETTINGS, 0, 0).collate(np.array([0]))
    learned = batch["labels"][0] != IGNORED
    assert tokenizer.decode(batch["input_ids"][0][learned]).split() == ["3", tokenizer.eos_token]
    assert torch.equal(batch["labels"][0][learned], batch["input_ids"][0][learned])


def test_text_is_learned_whole_and_eos_is_optional(tmp_path, tokenizer):
    path = write(tmp_path / "a.jsonl", {"text": "1 + 2 = 3"})
    with_eos, without = (load_examples(path, tokenizer, replace(SETTINGS, append_eos=eos)) for eos in (True, False))
    assert with_eos.completion_starts[0] == 0
    assert list(with_eos.example(0)) == [*without.example(0), tokenizer.eos_token_id]


@pytest.mark.parametrize("yes, no", [(True, False), (1, 0)])
def test_only_a_row_that_says_so_goes_on_after_its_end(yes, no, tmp_path, tokenizer):
    said = [{"open_ended": yes}, {"open_ended": no}, {"other": 2}, {}, None]
    path = write(tmp_path / "a.jsonl", *({"text": "1 + 2 = 3", "meta": meta} for meta in said))
    examples = load_examples(path, tokenizer, SETTINGS)
    ends = [examples.example(row)[-1] == tokenizer.eos_token_id for row in range(len(said))]
    assert ends == [False, True, True, True, True]


@pytest.mark.parametrize("name, content, message", [
    ("a.txt", "x", "a.txt:1: is no JSON"),
    ("missing.jsonl", None, "no such file or folder"),
    ("a.jsonl", '{"question": "x"}\n', "needs columns"),
    ("a.jsonl", '{"text": "a"}\n\nnot json\n', "a.jsonl:3: is no JSON"),
    ("a.jsonl", '{"text": "a"}\n{"text": 1}\n', "a.jsonl:2: `text` is not text"),
    ("a.jsonl", '{"text": "a"}\n[]\n', "a.jsonl:2: no JSON object"),
    ("a.jsonl", '{"text": 1}\n', "a.jsonl:1: `text` is not text"),
    ("a.jsonl", '{"text": null}\n', "needs columns"),
    ("a.jsonl", '{"text": "a"}\n{"text": null}\n', "row 2 has no `text`"),
    ("a.jsonl", "", "cannot be read|no rows"),
    ("a.jsonl", '{"text": "1"}\n{"text": ""}\n', "row 2 has nothing to learn.*1 such rows of 2.*on_empty_completion"),
    ("a.jsonl", '{"prompt": "1", "completion": ""}\n', "row 1 has nothing to learn"),
])  # fmt: skip
def test_bad_training_files_are_one_clear_error(tmp_path, tokenizer, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load_examples(tmp_path / name, tokenizer, SETTINGS)


def test_texts_like_dates_long_lines_and_other_types_of_text_are_read(tmp_path, tokenizer):
    dates = write(tmp_path / "dates.jsonl", {"prompt": "2024-01-01", "completion": "2024-01-02"})
    assert load_examples(dates, tokenizer, SETTINGS).counts["examples"] == 1
    long = write(tmp_path / "long.jsonl", {"text": "1 2", "note": "x" * 3_000_000}, {"text": "2 3", "note": ""})
    assert load_examples(long, tokenizer, SETTINGS).counts["examples"] == 2
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        table = pa.table({"prompt": pa.array(["1 + 2 ="], kind), "completion": pa.array([" 3"], kind)})
        pq.write_table(table, tmp_path / "a.parquet")
        assert load_examples(tmp_path / "a.parquet", tokenizer, SETTINGS).counts["examples"] == 1


def test_long_and_empty_examples_are_refused_left_out_or_cut_and_counted(tmp_path, tokenizer, caplog):
    def load(**settings: str) -> Examples:
        return load_examples(path, tokenizer, replace(SETTINGS, **settings), context=6)

    path = write(
        tmp_path / "a.jsonl",
        {"prompt": "solve: 1 =", "completion": " 1", "meta": {"level": 1}},
        {"prompt": "solve: 1 =", "completion": "", "meta": {"level": 2}},
        {"prompt": "solve: 1 =", "completion": " 1 + 1 + 1 + 1", "meta": {"level": 3}},
        {"prompt": "solve: 1 + 1 + 1 + 1 + 1 + 1 =", "completion": " 6", "meta": {"level": 4}},
    )
    with pytest.raises(UserError, match="row 2 has nothing to learn"):
        load()
    with pytest.raises(UserError, match=r"2 of 4 examples are longer .* of 6 tokens .*the longest, row 4, has \d+\)"):
        load(on_empty_completion="drop")
    dropped = load(on_empty_completion="drop", on_long_example="drop")
    assert (list(dropped.rows), list(dropped.meta["level"])) == ([1], [1])
    assert dropped.counts == {"rows": 4, "examples": 1, "dropped_empty": 1, "dropped_long": 2, "truncated": 0}
    cut = load(on_empty_completion="drop", on_long_example="truncate")
    assert (list(cut.rows), list(cut.meta["level"]), cut.lengths.max()) == ([1, 3], [1, 3], 6)
    assert cut.counts == {"rows": 4, "examples": 2, "dropped_empty": 1, "dropped_long": 1, "truncated": 1}
    assert "of 4 rows, 1 are left out as empty, 1 as longer than the context, and 1 are cut" in caplog.messages[-1]


def test_a_first_token_alone_is_nothing_to_learn(tmp_path, tokenizer):
    """Nothing stands before it to predict it from, and one that opens every text says nothing."""
    path = write(tmp_path / "a.jsonl", {"text": "1 + 1", "prompt": "1"}, {"text": "1", "prompt": "1"})
    with pytest.raises(UserError, match="row 2 has nothing to learn"):
        load_examples(path, tokenizer, replace(SETTINGS, append_eos=False))
    opening = copy.deepcopy(tokenizer)
    pair = (opening.eos_token, opening.eos_token_id)
    opening.backend_tokenizer.post_processor = TemplateProcessing(single=f"{pair[0]} $A", special_tokens=[pair])
    path = write(tmp_path / "b.jsonl", {"text": "1"}, {"text": ""})
    with pytest.raises(UserError, match=r"row 2 has nothing to learn.*\(1 such rows of 2\)"):
        load_examples(path, opening, SETTINGS)
