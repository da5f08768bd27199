"""What a training costs: FLOPs as worked out by hand, seconds from the log, and a table of several."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from calmctl.cli.main import app
from calmctl.errors import CalmctlError
from calmctl.training.cost import flop_counter, seconds_per_step
from tests.models import llama
from tests.sums import sums_config, write_sums
from tests.trained import run_training


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with two runs, `few` and `many`, that differ in the length of their training."""
    folder = tmp_path_factory.mktemp("cost")
    write_sums(folder)
    for name, steps in (("few", 2), ("many", 4)):
        run_training(sums_config(folder, steps=steps), folder / name)
    return folder


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_flops_are_those_of_the_formula(attention):
    """A matrix product of (m, k) and (k, n) takes 2mkn; backward twice that; the embedding needs none."""
    model = llama(attn_implementation=attention)
    batch, length, layers, width = 2, 16, 3, 32
    ids = torch.randint(2, 50, (batch, length))
    with flop_counter() as counter:
        model(ids, labels=ids, use_cache=False).loss.backward()
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name)
    # Scores and their use, over all heads; the fused kernel computes the scores again in the backward pass.
    attended = 4 * batch * length**2 * width * layers
    expected = 6 * batch * length * matrices + (3.5 if attention == "sdpa" else 3) * attended
    # Small extras, rotary angles for one, are counted too.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_a_run_says_what_it_cost(trained):
    facts = json.loads((trained / "many" / "run.json").read_text())
    cost, weights = facts["cost"], trained / "many" / "model"
    assert cost["trainable_parameters"] == facts["trainable_parameters"] == facts["total_parameters"]
    assert cost["model_bytes"] == sum(file.stat().st_size for file in weights.iterdir())
    assert cost["flops_per_token"] > 0 and cost["seconds_per_step"] >= 0 and cost["tokens_per_second"] > 0


def test_seconds_between_checkpoints_do_not_count():
    log = [{"step": 2 * step, "loss": 1.0, "seconds": step + (100 if step > 3 else 0)} for step in range(1, 8)]
    log.insert(4, {"step": 8, "validation_loss": 1.0, "seconds": 104.5})
    assert seconds_per_step(log) == 0.5
    assert seconds_per_step(log[:1]) is None


def test_trainings_are_reported_side_by_side(trained, tmp_path):
    runs = [str(trained / name) for name in ("few", "many")]
    shown = CliRunner().invoke(app, ["report", *runs, "--out", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    rows = json.loads((tmp_path / "cost.json").read_text())
    assert [Path(row["run"]).name for row in rows] == ["few", "many"]
    assert f"{rows[0]['trainable_parameters']:,}" in (tmp_path / "cost.md").read_text()
    assert "MFLOPs per token" in shown.stdout


def test_only_trainings_are_compared_with_trainings(trained, tmp_path):
    refused = CliRunner().invoke(app, ["report", str(trained / "few"), str(tmp_path)])
    assert isinstance(refused.exception, CalmctlError) and "nothing to report" in str(refused.exception)
