"""Batches: which examples are drawn at which step, also by an adaptive curriculum."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from calmctl.errors import UserError
from calmctl.training.batches import Batches
from calmctl.training.curriculum import Curriculum
from calmctl.training.settings import CurriculumSettings
from tests.additions import SETTINGS, examples, folder, tokenizer

__all__ = ["examples", "folder", "tokenizer"]


def test_a_batch_is_a_function_of_seed_and_step_alone(examples):
    first, second = (Batches(examples, SETTINGS, 5, 0) for _ in range(2))
    list(first)
    second.start_step = 4
    expected, found = list(first)[4:], list(second)
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(expected, found, strict=True))
    other = Batches(examples, SETTINGS, 6, 0)
    assert any(not np.array_equal(first.rows(step), other.rows(step)) for step in range(8))


def test_batches_share_a_length_and_cover_all_lengths(examples):
    batches = Batches(examples, SETTINGS, 0, 0)
    lengths = [set(examples.lengths[batches.rows(step)]) for step in range(200)]
    assert all(len(found) == 1 for found in lengths)
    assert set.union(*lengths) == set(examples.lengths)


def test_a_token_budget_bounds_every_batch(examples):
    batches = Batches(examples, replace(SETTINGS, batch_tokens=50), 0, 0)
    for batch in batches:
        assert 50 - batch["input_ids"].shape[1] < batch["input_ids"].numel() <= 50


@pytest.mark.parametrize(
    "settings", [{"batch_size": 7}, {"batch_tokens": 50}, {"batch_tokens": 50, "accumulation": 4}], ids=str
)
def test_an_epoch_takes_every_example_once(examples, settings):
    settings = replace(SETTINGS, sampling="epochs", steps=400, **settings)
    batches, drawn, epochs = Batches(examples, settings, 5, 0), [], 0
    for step in range(settings.steps):
        rows = batches.rows(step)
        assert len(rows) >= settings.accumulation
        drawn += rows.tolist()
        if len(drawn) == len(examples):
            assert sorted(drawn) == list(range(len(examples)))
            drawn, epochs = [], epochs + 1
        assert len(drawn) < len(examples)
    assert epochs >= 2
    steps = [300, 3, 299]
    other = Batches(examples, settings, 5, 0)
    assert all(np.array_equal(other.rows(step), batches.rows(step)) for step in steps)
    assert not np.array_equal(Batches(examples, settings, 6, 0).rows(3), batches.rows(3))
    assert batches.passes == pytest.approx(epochs + len(drawn) / len(examples), rel=0.05)
    if not settings.batch_tokens:
        assert {len(batches.rows(step)) for step in range(100)} <= {6, 7}
    few = examples.subset(np.arange(3))
    with pytest.raises(UserError, match="train.accumulation=4: the data has 3 examples"):
        Batches(few, replace(settings, batch_size=8, accumulation=4), 0, 0)
    if settings.batch_tokens:
        longest = [examples.lengths[batches.rows(step)].max() * len(batches.rows(step)) for step in range(200)]
        assert np.mean(np.array(longest) <= 50 + 8 * settings.accumulation) > 0.9


def test_micro_batches_partition_a_step(examples):
    settings = replace(SETTINGS, batch_size=8)
    whole = Batches(examples, settings, 0, 0)
    accumulated = Batches(examples, replace(settings, accumulation=4), 0, 0)
    assert len(accumulated) == len(list(accumulated)) == 32
    parts = [batch["input_ids"] for batch in list(accumulated)[:4]]
    assert torch.equal(torch.cat(parts), next(iter(whole))["input_ids"])


def curriculum(examples, **settings) -> Curriculum:
    return Curriculum(
        CurriculumSettings("num_operands", 2, 3, held_back_kind="context", held_back_until=3, **settings), examples
    )


def test_the_curriculum_goes_up_when_the_newest_examples_are_answered(examples):
    course = curriculum(examples, threshold=0.5)
    batches = Batches(examples, SETTINGS, 0, 0, course)
    seen = {value for step in range(50) for value in course.values[batches.rows(step)]}
    kinds = {kind for step in range(50) for kind in examples.meta["kind"][batches.rows(step)]}
    assert seen == {2} and kinds == {"plain"}
    for _ in range(4):
        batches.observe(1.0)
    assert course.level == 2
    for _ in range(4):
        batches.observe(1.0)
    assert course.level == 3
    seen = {value for step in range(50) for value in course.values[batches.rows(step)]}
    kinds = {kind for step in range(50) for kind in examples.meta["kind"][batches.rows(step)]}
    assert seen == {2, 3} and kinds == {"plain", "context"}


def test_the_last_level_is_drawn_by_its_weights(examples):
    course = curriculum(examples, final_weights=(0, 1))
    course.level = 3
    batches = Batches(examples, SETTINGS, 0, 0, course)
    assert {value for step in range(50) for value in course.values[batches.rows(step)]} == {3}


def test_curriculum_errors_name_the_field(examples):
    with pytest.raises(UserError, match="'depth' is not in the examples' meta"):
        Curriculum(CurriculumSettings("depth"), examples)
    with pytest.raises(UserError, match=r"no examples with num_operands = \[4, 5, 6\]"):
        Curriculum(CurriculumSettings("num_operands"), examples)
    lacking = np.where(np.arange(len(examples)) == 1, np.nan, examples.meta["num_operands"])
    with pytest.raises(UserError, match="'num_operands': not all rows have a number there"):
        curriculum(replace(examples, meta=examples.meta | {"num_operands": lacking}))
    # Levels below the last need examples that are not held back: to be drawn, and to be left.
    rare = replace(examples, meta=examples.meta | {"kind": np.array(["rare"] * len(examples))})
    for until, missing in ((3, "2"), (2, "2"), (4, "2, 3")):
        held_back = CurriculumSettings("num_operands", stop=3, held_back_kind="rare", held_back_until=until)
        with pytest.raises(UserError, match=rf"num_operands = \[{missing}\] but those of the held-back kind 'rare'"):
            Curriculum(held_back, rare)
