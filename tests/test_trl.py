"""TRL trains a composed model, around whose forward pass it goes: by its decoder, its head and its configuration."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from calmctl.modeling.composed import ComposedModelForCausalLM
from data_builders.kv.tokenizers import build_word_tokenizer
from tests import own_tokenizers
from tests.families import FAMILIES
from tests.models import composed, llama

trl = pytest.importorskip("trl", reason="the extra `trl` is not installed: pip install 'calmctl[trl]'")
# TRL passes on to transformers what has a new name there.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

SETTINGS = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "seed": 1, "save_strategy": "no",
            "max_steps": 2, "logging_steps": 1, "learning_rate": 1e-2}  # fmt: skip
PROMPT, TWO = 3, "two tokenizers"
PROMPTS = [f"solve: {a} + {b} =" for a in range(3) for b in range(3)]


def rows(count: int = 8, length: int = 9) -> Dataset:
    ids = torch.randint(2, 50, (count, length), generator=torch.Generator().manual_seed(5)).tolist()
    mask = [0] * PROMPT + [1] * (length - PROMPT)
    return Dataset.from_list([{"input_ids": row, "completion_mask": mask} for row in ids])


def our_loss(model: ComposedModelForCausalLM, data: Dataset) -> float:
    ids = torch.tensor(data["input_ids"])
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    with torch.no_grad():
        return model.eval()(ids, labels=labels).loss.item()


def sft(model: ComposedModelForCausalLM, data: Dataset, out: Path, **settings: object) -> "trl.SFTTrainer":
    arguments = trl.SFTConfig(str(out), per_device_train_batch_size=len(data), completion_only_loss=True,
                              **SETTINGS, **settings)  # fmt: skip
    tokenizer = build_word_tokenizer(["apple", "pear"], ["solve:"])
    trainer = trl.SFTTrainer(model, arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer)
    trainer.train()
    return trainer


@pytest.mark.parametrize("settings", [
    {"gradient_checkpointing": False},
    {"gradient_checkpointing": True},
    {"gradient_checkpointing": False, "packing": True, "max_length": 9},
    {"gradient_checkpointing": False, "padding_free": True, "max_length": None},
], ids=["padded", "checkpointing", "packed", "padding free"])  # fmt: skip
@pytest.mark.parametrize("name", ["Llama", "Gemma 2", "Granite", pytest.param(TWO, marks=pytest.mark.slow)])
def test_its_loss_is_ours_and_trains_the_bridges_only(name, settings, tmp_path):
    if name == TWO:
        model = own_tokenizers.composed()
    else:
        model = composed(FAMILIES[name](1), FAMILIES[name](2), connections=[[0, 0], [0, 1]])
    before, data = {each: tensor.clone() for each, tensor in model.state_dict().items()}, rows()
    expected = our_loss(model, data)
    trainer = sft(model, data, tmp_path, **settings)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(expected, abs=1e-4) and losses[1] < losses[0]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(our_loss(model, data), abs=1e-4)
    changed = {each for each, tensor in model.state_dict().items() if not torch.equal(tensor, before[each])}
    assert changed == set(model.composition_parameters())


@pytest.mark.slow
def test_it_loads_trains_by_preference_and_saves_what_is_stored(tmp_path):
    """Which takes a second copy of the model as a reference, loaded by the name of the first."""
    tokenizer = build_word_tokenizer(["apple", "pear"], ["solve:"])
    llama(seed=1).save_pretrained(tmp_path / "anchor")
    llama(seed=2).save_pretrained(tmp_path / "aug")
    composed(str(tmp_path / "anchor"), str(tmp_path / "aug")).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data = Dataset.from_list([{"prompt": prompt, "chosen": " 3", "rejected": " 4"} for prompt in PROMPTS])
    arguments = trl.DPOConfig(str(tmp_path / "out"), per_device_train_batch_size=4, **SETTINGS)
    trainer = trl.DPOTrainer(str(tmp_path / "model"), args=arguments, train_dataset=data)
    trainer.train()
    first, second = (row["loss"] for row in trainer.state.log_history if "loss" in row)
    assert first == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-4) and second < first
    trainer.save_model(str(tmp_path / "again"))
    again, ids = ComposedModelForCausalLM.from_pretrained(tmp_path / "again"), torch.arange(2, 10)[None]
    assert torch.equal(again(ids).logits, trainer.model.eval()(ids).logits)
