"""transformers' own Trainer, told nothing special: it trains, saves, resumes and picks the best as for any model."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from calmctl.modeling.composed import ComposedModelForCausalLM
from tests.models import composed, example_ids, llama


@pytest.fixture
def bases(tmp_path) -> tuple[str, str]:
    llama(seed=1).save_pretrained(tmp_path / "anchor")
    llama(seed=2, width=16, heads=2, kv_heads=1).save_pretrained(tmp_path / "aug")
    return str(tmp_path / "anchor"), str(tmp_path / "aug")


def rows(count: int) -> list[dict[str, list[int]]]:
    ids = torch.randint(2, 50, (count, 9), generator=torch.Generator().manual_seed(5)).tolist()
    return [{"input_ids": row, "labels": row} for row in ids]


def trainer(model: ComposedModelForCausalLM, out: Path, **arguments) -> Trainer:
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6, "learning_rate": 1e-2, **arguments}
    return Trainer(
        model,
        TrainingArguments(str(out), per_device_train_batch_size=2, use_cpu=True, report_to="none", disable_tqdm=True,
                          seed=1, **settings),
        train_dataset=rows(16), eval_dataset=rows(4),
        compute_metrics=lambda result: {"shape": result.predictions.shape[-1]},
    )  # fmt: skip


def test_it_resumes_bit_identically_and_leaves_the_bases_alone(bases, tmp_path, caplog):
    straight = composed(*bases, trained=False)
    before = {name: tensor.clone() for name, tensor in straight.state_dict().items()}
    trainer(straight, tmp_path / "out").train()
    names = straight.composition_parameters().keys()
    checkpoint = tmp_path / "out" / "checkpoint-3"
    assert load_file(checkpoint / "model.safetensors").keys() == straight.stored_tensors().keys()
    resumed = composed(*bases, trained=False)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        trainer(resumed, tmp_path / "again").train(resume_from_checkpoint=str(checkpoint))
    assert not [record.message for record in caplog.records if "missing keys" in record.message]
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
        assert torch.equal(tensor, before[name]) == (name not in names), name


def test_the_best_checkpoint_is_loaded_at_the_end_and_evaluation_sees_logits(bases, tmp_path):
    model = composed(*bases)
    best = trainer(model, tmp_path, eval_strategy="steps", eval_steps=3, load_best_model_at_end=True,
                   metric_for_best_model="loss", learning_rate=0.5)  # fmt: skip
    best.train()
    losses = {row["step"]: row["eval_loss"] for row in best.state.log_history if "eval_loss" in row}
    step = min(losses, key=losses.__getitem__)
    assert best.state.best_global_step == step
    assert best.evaluate()["eval_loss"] == losses[step] < max(losses.values())
    assert best.evaluate()["eval_shape"] == 50
    saved = load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors")
    assert all(torch.equal(model.stored_tensors()[name], tensor) for name, tensor in saved.items())


def test_what_it_saved_is_a_model_like_any_other(bases, tmp_path):
    model = composed(*bases, trained=False)
    run = trainer(model, tmp_path / "out")
    run.train()
    run.save_model(str(tmp_path / "model"))
    loaded = ComposedModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = example_ids()
    model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert torch.equal(loaded.generate(ids, max_new_tokens=3), model.generate(ids, max_new_tokens=3))


def test_label_smoothing_shifts_the_labels(tmp_path):
    """The Trainer computes this loss itself, from logits."""
    model, ids = composed(), example_ids()
    run = trainer(model, tmp_path, label_smoothing_factor=1e-9)
    torch.testing.assert_close(run.compute_loss(model, {"input_ids": ids, "labels": ids}), model(ids, labels=ids).loss)
