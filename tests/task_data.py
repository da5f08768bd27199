"""Small data of every task, each in the layout of its real files, and tiny models that read any text."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_builders.benchmarks.flores import ROWS
from data_builders.benchmarks.reasoning import ARITHMETIC, COMMONSENSE
from data_builders.kv.build import build
from tests.kv_settings import SMALL
from tests.models import composed, llama

_WORKED = {str(n): {"q": f"Frage: {n}?", "a": f"Schritt-für-Schritt-Antwort: {n}."} for n in range(1, 9)}
EXEMPLARS = "MGSM_EXEMPLARS = " + repr({"de": _WORKED})


def write_data(folder: Path) -> Path:
    """Write a folder of data for each task; returns the folder."""
    build(replace(SMALL, num_test_rows=4), folder / "kv")
    for split, count in ROWS.items():
        for code in ("eng_Latn", "fra_Latn"):
            (folder / "flores" / split).mkdir(parents=True, exist_ok=True)
            lines = "".join(f"{code} {split} {row}.\n" for row in range(count))
            (folder / "flores" / split / f"{code}.{split}").write_text(lines)
    for split in ("train", "test"):
        problems = ({"question": f"{split} {row}?", "answer": f"So {row}.\n#### {row}"} for row in range(9))
        _write(folder / "gsm8k" / f"{split}.jsonl", problems)
        functions = (_function(f"{split}{row}") for row in range(4))
        _write(folder / "codexglue" / "ruby" / f"{split}.jsonl", functions)
    _write(folder / "rows", ({"prompt": f"{row} and {row} is", "completion": f" {2 * row}."} for row in range(4)))
    for group, sets in (("arithmetic", ARITHMETIC), ("commonsense", COMMONSENSE)):
        for each in sets:
            asked = f"Which? Answer format: {'/'.join(each.labels)}" if each.kind == "label" else "How many? "
            answer = each.labels[0] if each.labels else "4.0"
            (folder / group / each.name).mkdir(parents=True)
            (folder / group / each.name / "test.json").write_text(
                json.dumps([{"instruction": asked, "answer": answer}])
            )
    (folder / "mgsm").mkdir()
    (folder / "mgsm" / "mgsm_de.tsv").write_text("".join(f"Frage {row}?\t{row}\n" for row in range(250)))
    (folder / "mgsm" / "exemplars.py").write_text(EXEMPLARS)
    _write(folder / "humaneval" / "HumanEval.jsonl", (_problem(row) for row in range(3)))
    _write(folder / "mbpp" / "mbpp.jsonl", (_program(task_id) for task_id in (2, 3, 4, 11, 12, 13)))
    return folder


def write_models(folder: Path) -> dict[str, Path]:
    """Write an untrained plain model and an untrained composed one, with a tokenizer of bytes; returns the folders."""
    tokenizer = byte_tokenizer()
    plain, aug = (_reads(model, len(tokenizer)) for model in (llama(seed=4), llama(seed=5, width=16, heads=2)))
    paths = {}
    for name, model, how in (
        ("plain", plain, {}),
        ("composed", composed(plain, aug, trained=False), {"merge_bases": True}),
    ):
        paths[name] = folder / name
        model.save_pretrained(paths[name], **how)
        tokenizer.save_pretrained(paths[name])
    return paths


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer with a token for each byte, a common word and the end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["</s>", *alphabet, "th", "the"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h"), ("th", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def _reads(model: PreTrainedModel, num_tokens: int) -> PreTrainedModel:
    model.resize_token_embeddings(num_tokens)
    model.config.max_position_embeddings = 8192
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    return model


def _write(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _function(name: str) -> dict[str, object]:
    words = ["Adds", "one", "to", name, "."]
    code = f"def {name}(a)\n  a + 1\nend"
    return {"code": code, "docstring": " ".join(words), "docstring_tokens": words, "language": "ruby"}


def _problem(row: int) -> dict[str, object]:
    return {
        "task_id": f"HumanEval/{row}",
        "prompt": f'def add(x):\n    """Add {row}."""\n',
        "entry_point": "add",
        "canonical_solution": f"    return x + {row}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {row + 1}\n",
    }


def _program(task_id: int) -> dict[str, object]:
    return {
        "task_id": task_id,
        "text": f"Write a function to add {task_id}.",
        "code": f"def add(x):\n  return x + {task_id}",
        "test_list": [f"assert add({x}) == {x + task_id}" for x in range(3)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
