"""What libraries do with a composed model they can do with one whose aug has a tokenizer of its own."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import Tensor
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, pipeline

from calmctl.errors import UserError
from calmctl.modeling.calling import CACHE, cache_of
from calmctl.modeling.composed import ComposedModelForCausalLM
from tests.models import checkpointing, logits
from tests.own_tokenizers import PAIRS, any_ids, composed, text_ids

PAIR = "gpt2-llama3"
NEW = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.fixture(scope="module")
def model() -> ComposedModelForCausalLM:
    return composed(PAIR)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.cat([make(PAIR, 1, rows, 11) for make, rows in ((text_ids, 2), (any_ids, 1))])


def on_cpu(model: ComposedModelForCausalLM, _folder: Path) -> ComposedModelForCausalLM:
    return cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))


def on_disk(model: ComposedModelForCausalLM, folder: Path) -> ComposedModelForCausalLM:
    return disk_offload(copy.deepcopy(model), str(folder), execution_device=torch.device("cpu"))


COPIES: dict[str, Callable[[ComposedModelForCausalLM, Path], ComposedModelForCausalLM]] = {
    "pickled": lambda model, _: pickle.loads(pickle.dumps(model)),
    "copied": lambda model, _: copy.deepcopy(model),
    "offloaded to memory": on_cpu,
    "offloaded to disk": on_disk,
}


@pytest.mark.parametrize("how", [
    pytest.param(how, marks=[] if how == "pickled" else pytest.mark.slow) for how in COPIES
])  # fmt: skip
def test_it_is_the_same_however_it_is_held(how, model, ids, tmp_path):
    other = COPIES[how](model, tmp_path)
    torch.testing.assert_close(logits(other, ids), logits(model, ids), atol=1e-5, rtol=1e-5)
    assert torch.equal(other.generate(ids, **NEW), model.generate(ids, **NEW))


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_logits(model, ids):
    other = torch.compile(copy.deepcopy(model), backend="eager")
    torch.testing.assert_close(logits(other, ids, use_cache=False), logits(model, ids), atol=1e-5, rtol=1e-5)


def test_a_returned_cache_is_gone_on_from_more_than_once(model, ids):
    output = model.generate(ids, return_dict_in_generate=True, **NEW)
    longer = torch.cat([output.sequences, ids[:, :3]], dim=1)
    expected = model.generate(longer, **NEW)
    for held in (copy.deepcopy(cache_of(output)), cache_of(output)):
        assert torch.equal(model.generate(longer, **{CACHE: held}, **NEW), expected)


@pytest.mark.slow
def test_no_way_of_drafting_changes_what_is_written(model, ids):
    row = ids[:1].repeat(1, 3)
    expected = model.generate(row, **NEW)
    drafts = composed(PAIR, ("llama", "gpt2"))
    for how in ({"prompt_lookup_num_tokens": 3}, {"assistant_early_exit": 1}, {"assistant_model": drafts}):
        assert torch.equal(model.generate(row, **how, **NEW), expected)
    alone = model.anchor.generate(row, **NEW)
    assert torch.equal(model.anchor.generate(row, assistant_model=model, **NEW), alone)


def test_rows_and_places_that_are_masked_are_not_read(model, ids):
    expected, mask = logits(model, ids), torch.ones_like(ids)
    mask[1], mask[0, 3:5] = 0, 0
    found = logits(model, ids, attention_mask=mask)
    assert found.isfinite().all()
    torch.testing.assert_close(found[2], expected[2], atol=1e-4, rtol=1e-4)
    kept = mask[0].bool()
    torch.testing.assert_close(found[0, kept], logits(model, ids[:1, kept])[0], atol=1e-4, rtol=1e-4)
    written = model.generate(ids, attention_mask=mask, **NEW)
    assert torch.equal(written[2], model.generate(ids, **NEW)[2])


@pytest.mark.slow
def test_threads_and_pipelines_share_a_model(model, ids):
    expected, texts = model.generate(ids, **NEW), ["She said", "Привет, мир", "x = [1"]
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(lambda _: model.generate(ids, **NEW), range(5)))
    write = partial(pipeline("text-generation", model=model, tokenizer=PAIRS[PAIR][0]()), **NEW)
    assert write(texts, batch_size=3) == [write(text) for text in texts]


@pytest.mark.slow
def test_recomputed_activations_change_no_gradient(model, ids):
    other, gradients = copy.deepcopy(model).train(), []
    for enabled in (False, True):
        checkpointing(other, enabled)
        other.zero_grad()
        other(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in other.composition_parameters().values()])
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_the_trainer_of_transformers_resumes_bit_identically(model, tmp_path):
    rows = [{"input_ids": row, "labels": row} for row in text_ids(PAIR, 3, 16, 11).tolist()]

    def trainer(out: str) -> Trainer:
        arguments = TrainingArguments(
            str(tmp_path / out), per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True,
            seed=1, max_steps=4, save_steps=2, learning_rate=1e-2,
        )  # fmt: skip
        return Trainer(copy.deepcopy(model), arguments, train_dataset=rows)

    straight, resumed = trainer("straight"), trainer("resumed")
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    one, two = (each.model.composition_parameters() for each in (straight, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], parameter) for name, parameter in model.composition_parameters().items())


def test_a_model_made_of_a_configuration_knows_no_tokenizers(model, ids, tmp_path):
    bare = AutoModelForCausalLM.from_config(model.config)
    for ask in (lambda: bare(ids), lambda: bare.save_pretrained(tmp_path / "bare", merge_bases=True)):
        with pytest.raises(UserError, match="a tokenizer of its own, which a model made of a configuration only does"):
            ask()
