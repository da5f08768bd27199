"""Packing: rows are full, and a packed document is learned as it would be alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from calmctl.errors import UserError
from calmctl.modeling.calling import accepts
from calmctl.modeling.loss import IGNORED
from calmctl.training.batches import Batches
from calmctl.training.examples import Examples
from calmctl.training.packing import check_packing, pack
from calmctl.training.settings import CurriculumSettings, TrainSettings
from tests.families import FAMILIES
from tests.models import VOCABULARY, composed
from tests.sums import sums_config, write_sums
from tests.trained import run_training

CONTEXT = 12
LENGTHS = [3, 12, 5, 30, 2, 7, 1, 25, 9, 4]
PACKED = ["Llama", "Qwen2", "GPT-NeoX", "Gemma 3", "GPT-2"]


@pytest.fixture
def corpus() -> Examples:
    """Documents of `LENGTHS` random tokens; two are longer than a row, one has a single token."""
    ids = np.random.default_rng(0).integers(2, VOCABULARY, sum(LENGTHS)).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    return Examples(ids, starts, np.zeros(len(LENGTHS), np.int32), {}, np.arange(1, len(LENGTHS) + 1), {})


def pieces(examples: Examples) -> list[list[int]]:
    """Return the documents of a corpus, cut."""
    found = []
    for index in range(len(examples)):
        tokens = examples.example(index).tolist()
        found += [tokens[begin : begin + CONTEXT] for begin in range(0, len(tokens), CONTEXT)]
    return [piece for piece in found if len(piece) > 1]


def test_every_piece_is_in_one_row_and_rows_are_full(corpus):
    packed, found = pack(corpus, CONTEXT), []
    for row in range(len(packed)):
        begin, end = packed.starts[row], packed.starts[row + 1]
        starts = np.flatnonzero(packed.positions[begin:end] == 0)
        found += [part.tolist() for part in np.split(packed.ids[begin:end], starts[1:])]
    assert sorted(found) == sorted(pieces(corpus))
    assert packed.lengths.max() <= CONTEXT
    for row, document in enumerate(packed.rows):
        first = packed.example(row)[: np.argmin(packed.positions[packed.starts[row] + 1 :]) + 1]
        assert first.tolist()[:2] in [piece[:2] for piece in pieces(corpus.subset(np.array([document - 1])))]
    assert len(packed) == -(-len(packed.ids) // CONTEXT)


def packed_batch(corpus: Examples) -> dict[str, torch.Tensor]:
    packed = pack(corpus, CONTEXT)
    return Batches(packed, TrainSettings(), 0, pad_id=0).collate(np.arange(len(packed)))


def model_of(name: str):
    if name == "composed":
        return composed(FAMILIES["GPT-NeoX"](), FAMILIES["Qwen2"](), num_heads=2, every=2)
    return FAMILIES[name]()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", [*PACKED, "composed"])
def test_the_loss_of_packed_documents_is_that_of_each_alone(corpus, name, attention):
    model = model_of(name)
    for base in (model.anchor, *model.augs) if name == "composed" else (model,):
        base.set_attn_implementation(attention)
    check_packing(model)
    batch = packed_batch(corpus)
    learned = (batch["labels"] != IGNORED).sum()
    with torch.no_grad():
        together = model(**batch, use_cache=False).loss
        alone = [(len(piece) - 1, torch.tensor([piece])) for piece in pieces(corpus)]
        summed = sum(count * model(ids, labels=ids).loss for count, ids in alone)
    assert learned == sum(count for count, _ in alone)
    torch.testing.assert_close(together, summed / learned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["OPT", "BLOOM", "Falcon, rotary", "Falcon, alibi"])
def test_models_whose_documents_see_each_other_are_refused(name):
    """Which ones do depends on the version of transformers (Falcon's no longer do in 5.24)."""
    model, ids = FAMILIES[name]().eval(), torch.tensor([[4, 5, 2, 3]])
    positions = {"position_ids": torch.tensor([[0, 1, 0, 1]])} if accepts(model, "position_ids") else {}
    with torch.no_grad():
        packed = model(ids, use_cache=False, **positions).logits[:, 2:]
        alone = model(ids[:, 2:], use_cache=False).logits
    if torch.allclose(packed, alone, atol=1e-5):
        return check_packing(model)
    with pytest.raises(UserError, match="lets documents of a packed row see each other"):
        check_packing(FAMILIES[name]())
    with pytest.raises(UserError, match="train.packing: (OPT|Bloom|Falcon)"):
        check_packing(composed(FAMILIES["Llama"](), FAMILIES[name](), num_heads=2))


def test_other_rows_than_text_are_refused(corpus):
    with pytest.raises(UserError, match="for rows of `text`"):
        pack(replace(corpus, completion_starts=np.ones(len(corpus), np.int32)), CONTEXT)
    with pytest.raises(UserError, match="cannot read packed rows|read prompts only"):
        check_packing(composed(aug_reads="prompt"))
    with pytest.raises(ValueError, match="curriculum"):
        TrainSettings(packing=True, curriculum=CurriculumSettings("num_operands"))


def test_a_model_is_trained_on_a_corpus_of_documents_longer_than_its_context(tmp_path):
    write_sums(tmp_path)
    texts = [" + ".join(map(str, range(60))), "1 + 2 = 3"]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = replace(sums_config(tmp_path, steps=2, packing=True), dataset=str(tmp_path / "corpus.jsonl"))
    run = run_training(config, tmp_path / "out")
    assert run.is_complete and len(run.read_jsonl()) == 2
    with pytest.raises(UserError, match="examples are longer than .* train.packing=true"):
        run_training(replace(config, train=replace(config.train, packing=False)), tmp_path / "unpacked")
