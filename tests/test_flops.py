"""FLOPs worked out from shapes are those that trainings and forward passes are measured to take."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calmctl.baselines.building import adapt
from calmctl.experiments.planning.trainings import Planner
from calmctl.experiments.stage import stage_in
from calmctl.modeling.bases.sources import base_config, without_weights
from calmctl.modeling.connections import resolve_connections
from calmctl.modeling.tokenizers.aug_tokens import AugHistory
from calmctl.runs.run import read_run
from calmctl.training.configs import ComposeConfig, TrainConfig
from calmctl.training.cost import EAGER, CompositionFlops, DecoderFlops, adapter_training, flop_counter
from calmctl.training.settings import TrainSettings
from data_builders.kv.tokenizers import build_word_tokenizer
from tests import tokenizer_families as families
from tests.families import FAMILIES
from tests.models import composed, example_ids, llama
from tests.own_tokenizers import base, text_ids
from tests.own_tokenizers import composed as own_composed
from tests.trained import run_composition, run_training

LENGTH = 40
MODEL = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
AUG = MODEL | {"hidden_size": 32, "num_hidden_layers": 3}
SETTINGS = TrainSettings(steps=1, batch_size=4, optimizer="adamw")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a tokenizer, texts that are all of one length, and an anchor and an aug."""
    folder = tmp_path_factory.mktemp("flops")
    build_word_tokenizer(["ab"], ["solve:"]).save_pretrained(folder / "tokenizer")
    row = json.dumps({"text": "1" * (LENGTH - 1)})  # a token a digit, and the end of the text
    (folder / "train.jsonl").write_text(f"{row}\n" * 8)
    for name, model in (("anchor", MODEL), ("aug", AUG)):
        files = {"dataset": str(folder / "train.jsonl"), "tokenizer": str(folder / "tokenizer")}
        run_training(TrainConfig(**files, model=model, train=SETTINGS), folder / name)
    return folder


def measured(run: Path) -> float:
    return read_run(run).facts["cost"]["flops_per_token"]


def decoder(folder: Path, name: str) -> DecoderFlops:
    return DecoderFlops(without_weights(base_config(str(folder / name))))


def test_training_a_model_takes_what_was_worked_out(folder):
    for name in ("anchor", "aug"):
        assert decoder(folder, name).training(LENGTH) == pytest.approx(measured(folder / name), rel=0.02)


def test_training_bridges_takes_what_was_worked_out(folder):
    """With a connection that leaves the lower half of the anchor without a graph, and the aug's last layer unread."""
    pairs = [[0, 1], [1, 3]]
    config = ComposeConfig(str(folder / "anchor"), (str(folder / "aug"),), pairs, train=SETTINGS)
    run_composition(replace(config, dataset=str(folder / "train.jsonl")), folder / "calm")
    anchor, aug = decoder(folder, "anchor"), decoder(folder, "aug")
    expected = CompositionFlops(anchor, [aug], resolve_connections(pairs, [3], 4)).training(LENGTH)
    assert expected == pytest.approx(measured(folder / "calm"), rel=0.03)
    # That is far less than training as many layers of both would take.
    assert expected < 0.7 * (anchor.training(LENGTH) + aug.training(LENGTH))


def test_the_plan_of_a_stage_is_what_its_run_records(folder):
    """Of the run that the test before it made."""
    bases, settings = (str(folder / "anchor"), (str(folder / "aug"),)), replace(SETTINGS, context=LENGTH)
    config = ComposeConfig(*bases, [[0, 1], [1, 3]], train=settings)
    plan = Planner(lambda: 0).plan(stage_in(folder, "planned", ("compose",), config))
    facts = read_run(folder / "calm").facts
    assert plan is not None and plan.tokens == SETTINGS.batch_size * LENGTH
    assert plan.flops / plan.tokens == pytest.approx(facts["cost"]["flops_per_token"], rel=0.03)
    assert (plan.trainable_parameters, plan.parameters) == (facts["trainable_parameters"], facts["total_parameters"])


def test_plain_products_for_attention_take_less_in_the_backward_pass():
    model, ids = composed(llama(width=64, attn_implementation="eager")).train(), torch.randint(2, 50, (2, LENGTH))
    with flop_counter() as counter:
        model(ids, labels=ids).loss.backward()
    bases = (DecoderFlops(base) for base in (model.anchor, *model.augs))
    expected = CompositionFlops(next(bases), list(bases), model.connections).training(LENGTH, EAGER)
    assert expected == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.03)


@pytest.mark.parametrize("pair", ["bytes-gpt2", "llama3-prefixed"])
def test_tokens_of_an_aug_with_a_tokenizer_of_its_own_are_counted(pair):
    ids = text_ids(pair, 0, length=LENGTH)
    model = own_composed(pair).train()
    read = AugHistory().read(model.model.segmenters[0], ids, None).num_columns / LENGTH
    assert abs(read - 1) > 0.05
    bases = (DecoderFlops(base) for base in (model.anchor, *model.augs))
    of = CompositionFlops(next(bases), list(bases), model.connections, aug_tokens=[read])
    with flop_counter() as counter:
        model(ids, labels=ids).loss.backward()
    assert of.training(LENGTH) == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.03)
    plain = replace(of, is_folded=False)
    with flop_counter() as counter, torch.no_grad():
        model.eval()(ids, use_cache=False)
    assert plain.forward(LENGTH) == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.02)


def test_a_plan_counts_the_tokens_of_augs_with_tokenizers_of_their_own(tmp_path):
    names = {"anchor": families.gpt2_style(), "equal": families.gpt2_style(), "bytes": families.prefixed_bytes()}
    for name, tokenizer in names.items():
        base("llama", tokenizer, 0).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    plans = []
    for aug in ("equal", "bytes"):
        config = ComposeConfig(str(tmp_path / "anchor"), (str(tmp_path / aug),))
        plans.append(Planner(lambda: 0).plan(stage_in(tmp_path, "planned", ("compose",), config)))
    assert plans[0].flops * 1.03 < plans[1].flops and plans[0].tokens == plans[1].tokens


# Below the first feed-forward block, where parallel adapters begin, nothing keeps a graph.
@pytest.mark.parametrize("method, tolerance", [("lora", 0.05), ("prefix", 0.05), ("parallel", 0.1)])
def test_training_adapters_takes_what_was_worked_out(method, tolerance):
    torch.manual_seed(0)
    anchor = llama(layers=6, width=64, kv_heads=4)
    counted, model = DecoderFlops(anchor), adapt(anchor, method, size=4).train()
    ids = torch.randint(2, 50, (2, LENGTH))
    with flop_counter() as counter:
        model(ids, labels=ids).loss.backward()
    trainable = sum(parameter.numel() for parameter in model.trained_parameters().values())
    expected = adapter_training(counted, trainable, LENGTH)
    assert expected == pytest.approx(counter.get_total_flops() / ids.numel(), rel=tolerance)


@pytest.mark.parametrize("family", ["Llama", "Gemma 2", "Qwen2", "GPT-NeoX", "GPT-2"])
def test_a_forward_pass_takes_what_was_worked_out(family):
    model, ids = FAMILIES[family](), example_ids()
    with flop_counter() as counter, torch.no_grad():
        model(ids, use_cache=False)
    expected = DecoderFlops(model).forward(ids.shape[1])
    assert expected == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.02)


@pytest.mark.parametrize("norm", [False, True])
def test_a_composed_forward_pass_takes_what_was_worked_out(norm):
    model, ids = composed(norm=norm), example_ids()
    with flop_counter() as counter, torch.no_grad():
        model(ids, use_cache=False)
    bases = (DecoderFlops(base) for base in (model.anchor, *model.augs))
    expected = CompositionFlops(next(bases), list(bases), model.connections, is_folded=False).forward(ids.shape[1])
    assert expected == pytest.approx(counter.get_total_flops() / ids.numel(), rel=0.02)
