"""The scripts and the notebook in examples/ run from end to end on toy models."""

import json
from pathlib import Path

import pytest

from tests.forked import run_script
from tests.own_tokenizers import PAIRS, base

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the folders of an anchor and an aug, which differ in architecture and tokenizer."""
    root = tmp_path_factory.mktemp("models")
    for name, make, kind in zip(("anchor", "aug"), PAIRS["gpt2-llama3"], ("llama", "gemma2"), strict=True):
        tokenizer = make()
        tokenizer.eos_token = tokenizer.eos_token or tokenizer.pad_token
        base(kind, tokenizer, 0).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return [str(root / "anchor"), str(root / "aug")]


def test_a_composition_is_trained_stored_and_looked_at(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = run_script(EXAMPLES / "compose.py", *models, "--steps", 3, "--lr", 0.1, "--out", out).splitlines()
    assert [line.split(":")[0] for line in said[:3]] == ["step 1", "step 2", "step 3"]
    table = run_script(EXAMPLES / "what_changed.py", out, "German: Das Wasser ist kalt.\\nEnglish:", " The water")
    lines = table.splitlines()
    alone, composed, change = map(float, lines[-1].removeprefix("bits in all").split())
    assert len(lines) > 3 and change == pytest.approx(composed - alone, abs=0.11) and change != 0


def test_the_trainer_of_transformers_trains_bridges(models: list[str], tmp_path: Path) -> None:
    rows = [{"prompt": f"number {i}:", "completion": f" {i}"} for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_script(EXAMPLES / "trainer.py", *models, tmp_path / "rows.jsonl", "--steps", 2, "--out", tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_every_cell_of_the_notebook_runs(models: list[str], tmp_path: Path) -> None:
    cells = json.loads((EXAMPLES / "two_models.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    first = code[0].replace("HuggingFaceTB/SmolLM2-135M-Instruct", models[0]).replace("google/gemma-3-270m", models[1])
    assert first.count(models[0]) == first.count(models[1]) == 1
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join([f"import os\nos.chdir({str(tmp_path)!r})", first, *code[1:]]))
    said = run_script(script)
    assert "parameters are trained" in said and (tmp_path / "composed" / "config.json").is_file()
