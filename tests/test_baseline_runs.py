"""Baselines as runs: their size, what they store, how they resume, what is refused; decoding with them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from calmctl import AdaptedModelForCausalLM, adapt
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.training import baseline_job
from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.inference import continuation
from calmctl.inference.generation import Engine
from calmctl.inference.prompt import fit
from calmctl.inference.settings import Decoding
from calmctl.modeling.bases.fingerprint import weights_sha256
from calmctl.modeling.bases.sources import load_base
from calmctl.runs.run import Run
from calmctl.training.settings import TrainSettings
from data_builders.kv.tokenizers import build_word_tokenizer
from evals import Request
from tests.families import FAMILIES
from tests.models import example_ids, llama, logits, with_random_adapters
from tests.trained import run_baseline

# peft finds its matrices by the names we give it: kinds of matrices matter, families hardly.
FOR_LORA = ["Llama", "GPT-2", "OPT", "Mixtral", "Phi-3"]
SETTINGS = TrainSettings(steps=4, batch_size=4, optimizer="muon", lr=0.01, warmup_steps=1, save_every=2, log_every=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An anchor with its tokenizer, and a few additions."""
    folder = tmp_path_factory.mktemp("baselines")
    tokenizer = build_word_tokenizer(["ab", "cd"], ["substitute:", "solve:"])
    anchor = llama(seed=1)
    anchor.resize_token_embeddings(len(tokenizer))
    anchor.save_pretrained(folder / "anchor")
    tokenizer.save_pretrained(folder / "anchor")
    rows = [{"prompt": f"solve: {a} + {b} =", "completion": f" {a + b}"} for a in range(5) for b in range(5)]
    (folder / "dc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def config(folder: Path, method: str, **settings) -> BaselineConfig:
    data = {"anchor": str(folder / "anchor"), "dataset": str(folder / "dc.jsonl")}
    return BaselineConfig(method, **(data | {"parameters": 3000, "seed": 3, "train": SETTINGS} | settings))


@pytest.mark.parametrize("method", ["lora", "prefix", "parallel", pytest.param("series", marks=pytest.mark.slow)])
def test_a_run_stores_adapters_only_and_leaves_its_anchor_alone(folder, tmp_path, method):
    before = weights_sha256(load_base(folder / "anchor").state_dict())
    run = run_baseline(config(folder, method), tmp_path / "run")
    assert run.facts["matched_parameters"] == 3000 and abs(run.facts["difference_percent"]) < 2
    tensors = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == run.facts["trainable_parameters"]
    loaded = load_base(str(tmp_path / "run"))
    assert isinstance(loaded, AdaptedModelForCausalLM)
    assert all(torch.equal(tensors[name], parameter) for name, parameter in loaded.trained_parameters().items())
    assert loaded.fingerprints()[0]["weights_sha256"] == before
    loaded.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    ids = example_ids() % loaded.config.vocab_size
    assert torch.equal(logits(again, ids), logits(loaded, ids))


@pytest.mark.parametrize("method", [pytest.param("lora", marks=pytest.mark.slow), "prefix"])
def test_an_interrupted_run_ends_bit_identical_to_a_straight_one(folder, tmp_path, monkeypatch, method):
    append = Run.append_jsonl

    def interrupt(run: Run, row: dict, *rest: str, **how: bool) -> None:
        append(run, row, *rest, **how)
        if row["step"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "append_jsonl", interrupt)
        run_baseline(config(folder, method), tmp_path / "resumed")
    for name in ("resumed", "straight"):
        run_baseline(config(folder, method), tmp_path / name)
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("resumed", "straight"))
    assert all(torch.equal(one[name], other[name]) for name in one | other)


def test_the_command_matches_a_run_and_the_run_is_a_model(folder, tmp_path, capsys):
    with Run.start(tmp_path / "calm", kind="compose", config={}) as run:
        run.finish(trainable_parameters=4000)
    command = ["baseline", "parallel", "--anchor", str(folder / "anchor"), "--data", str(folder / "dc.jsonl")]
    command += ["--match", str(tmp_path / "calm"), "--preset", "kv/smoke", "--out", str(tmp_path / "run"), "--json"]
    command += ["train.steps=2", "train.warmup_steps=0", "train.precision=fp32"]
    assert main([*command, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "run").exists()
    assert main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trainable_parameters"] == plan["trainable_parameters"]
    assert facts["difference_percent"] == plan["difference_percent"]
    generate = ["generate", "solve: 1 + 2 =", "--model", str(tmp_path / "run"), "-n", "2", "--json"]
    assert main(generate) == 0
    other = llama(seed=9)
    other.resize_token_embeddings(load_base(folder / "anchor").config.vocab_size)
    model = load_base(str(tmp_path / "run"))
    with pytest.raises(UserError, match="is not the one this model was trained with"):
        AdaptedModelForCausalLM.from_pretrained(tmp_path / "run" / "model", anchor=other)
    allowed = AdaptedModelForCausalLM.from_pretrained(
        tmp_path / "run" / "model", anchor=other, allow_different_base=True
    )
    assert allowed.trained_parameters().keys() == model.trained_parameters().keys()


def test_lora_merges_into_a_plain_model_and_others_do_not(folder, tmp_path):
    ids = example_ids()
    for name in FOR_LORA:
        model = with_random_adapters(adapt(FAMILIES[name](), "lora", size=3))
        expected = logits(model, ids)
        torch.testing.assert_close(logits(model.merged(), ids), expected, atol=1e-4, rtol=1e-3)
        assert torch.equal(logits(model, ids), expected)
    run_baseline(config(folder, "lora", merge=True), tmp_path / "merged")
    plain = load_base(str(tmp_path / "merged"))
    assert type(plain) is LlamaForCausalLM
    assert plain.state_dict().keys() == load_base(folder / "anchor").state_dict().keys()
    for method in ("prefix", "series", "parallel"):
        with pytest.raises(UserError, match=f"{method} adapters cannot be merged .*lora can"):
            run_baseline(config(folder, method, merge=True), tmp_path / "no")


def test_full_trains_a_plain_model(folder, tmp_path):
    run = run_baseline(config(folder, "full"), tmp_path / "full")
    assert run.facts["trainable_parameters"] == run.facts["total_parameters"]
    assert run.facts["difference_percent"] > 0
    assert type(load_base(str(tmp_path / "full"))) is LlamaForCausalLM


@pytest.mark.parametrize("method", ["lora", "prefix", "parallel", "prompt"])
def test_completions_do_not_depend_on_batches_or_shared_shots(folder, method, monkeypatch):
    monkeypatch.setattr(continuation, "STRETCH", 2)
    tokenizer = AutoTokenizer.from_pretrained(folder / "anchor")
    model = with_random_adapters(adapt(str(folder / "anchor"), method, size=4))
    shots = ("solve: 1 + 2 = 3 ", "solve: 12 - 4 = 8 ")
    texts = ("solve: 1 + 2 =", "solve: 12 + 33 - 4 =", "9", "solve: 7 =")
    asked = [Request("", text, 12, ("1", "k"), shots, num_samples=3) for text in texts]
    found = []
    for batch_size, share in ((3, True), (3, False), (1, True)):
        decoding = Decoding(batch_size=batch_size, temperature=2.0)
        samples = Engine(model, tokenizer, decoding, share_prefixes=share).generate(fit(model, tokenizer, asked))
        found.append({(each.prompt_index, each.index): each.text for batch in samples for each in batch})
    assert found[0] == found[1] == found[2] and len(set(map(len, found[0].values()))) > 3


# What bad input gets.


@pytest.mark.parametrize("settings, message", [
    ({"method": "lara"}, "method='lara' is not one of lora, prefix"),
    ({"anchor": ""}, "anchor is not set; give --anchor"),
    ({"dataset": ""}, "dataset is not set; give --data"),
    ({"parameters": 0}, "nothing is given; give one of"),
    ({"size": 2}, "parameters and size is given; give one of"),
    ({"parameters": 0, "match": "nowhere"}, "nowhere is no run directory"),
    ({"method": "full", "size": 2}, "size: method full trains the whole anchor"),
    ({"method": "prefix", "where": "both"}, "where=both: Prefix tuning cannot go there"),
    ({"method": "lora", "activation": "relu"}, "activation=relu: LoRA has no such option"),
    ({"method": "full", "parameters": 0, "dropout": 0.1}, "dropout: method full trains the whole anchor"),
    ({"parameters": 10}, "10 trainable parameters are too few"),
])  # fmt: skip
def test_bad_settings_are_one_clear_error(folder, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run_baseline(config(folder, **({"method": "lora"} | settings)), tmp_path / "out")


def test_any_training_can_be_matched_and_nothing_else(folder, tmp_path):
    with Run.start(tmp_path / "full", kind="baseline", config={}) as run:
        run.finish(trainable_parameters=2_000)
    found = baseline_job(config(folder, "lora", parameters=0, match=str(tmp_path / "full"))).plan().plan.shown()
    assert found["matched_parameters"] == 2_000 and abs(found["difference_percent"]) < 2
    with Run.start(tmp_path / "eval", kind="eval", config={}) as run:
        run.finish()
    with pytest.raises(UserError, match="eval: this run of kind eval trained nothing"):
        run_baseline(config(folder, "lora", parameters=0, match=str(tmp_path / "eval")), tmp_path / "out")


def test_learning_rates_are_scaled_by_method():
    scaled = BaselineConfig("full", train=SETTINGS, lr_scale={"full": 0.5}).settings
    assert (scaled.lr, scaled.adamw_lr) == (SETTINGS.lr / 2, SETTINGS.adamw_lr / 2)
    assert BaselineConfig("lora", train=SETTINGS, lr_scale={"full": 0.5}).settings == SETTINGS
    with pytest.raises(ValueError, match="lr_scale.lara: no such method"):
        BaselineConfig(lr_scale={"lara": 2.0})
