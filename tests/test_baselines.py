"""Baselines: adapters in frozen anchors, of every family, with as many parameters as a composition."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, StaticCache

from calmctl import AdaptedModelForCausalLM, adapt
from calmctl.baselines.building import difference_percent, matched_sizes
from calmctl.baselines.configs import BaselineConfig
from calmctl.baselines.jobs import baseline_job, run_baseline
from calmctl.baselines.methods import ADAPTERS
from calmctl.cli.main import main
from calmctl.errors import UserError
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import Engine
from calmctl.inference.prompt import fit
from calmctl.modeling.bases.fingerprint import weights_sha256
from calmctl.modeling.bases.sources import load_base
from calmctl.modeling.calling import CACHE
from calmctl.runs.run import Run
from calmctl.training.settings import TrainSettings
from data_builders.kv.word_tokenizer import build_word_tokenizer
from evals import Request
from tests.families import FAMILIES, WINDOW
from tests.models import checkpointing, composed, example_ids, llama, logits, padded

# GPT-J attends as the others do from transformers 5.24 on.
OWN_ATTENTION = {"BLOOM", "Falcon, rotary", "Falcon, alibi"} | ({"GPT-J"} if CACHE == "past_key_values" else set())
# peft finds its matrices by the names we give it: kinds of matrices matter, families hardly.
FOR_LORA = ["Llama", "GPT-2", "OPT", "Mixtral", "Phi-3"]
# Series adapters go where parallel ones do; these differ in what comes out of a block.
FOR_SERIES = ["Llama", "OPT", "BLOOM", "GPT-J", "Mixtral"]
# A layer of Gemma 4 has two blocks with matrices beside its attention, which is refused.
FOR_PARALLEL = list(FAMILIES)
# Windows, soft caps, positions that are learned, and heads that are shared.
FOR_PREFIX = ["Llama", "Gemma 2", "Gemma 3", "Mistral", "GPT-2", "GPT-NeoX", "OPT", "Phi-3"]
# Every kind of block, attention and position; the other families differ in what the composed model's tests are about.
IN_EVERY_RUN = {"Llama", "GPT-2", "GPT-NeoX", "GPT-J", "OPT", "BLOOM", "Mixtral", "Gemma 3"}
CASES = [
    pytest.param(name, method, marks=() if name in IN_EVERY_RUN else pytest.mark.slow, id=f"{name}-{method}")
    for method, names in {
        "parallel": FOR_PARALLEL,
        "series": FOR_SERIES,
        "prefix": FOR_PREFIX,
        "lora": FOR_LORA,
    }.items()
    for name in names
]
SETTINGS = TrainSettings(steps=4, batch_size=4, optimizer="muon", lr=0.01, warmup_steps=1, save_every=2, log_every=1)


def trained(model: AdaptedModelForCausalLM) -> AdaptedModelForCausalLM:
    """Give adapters random weights, so that they matter."""
    torch.manual_seed(3)
    for parameter in model.trained_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name, method", CASES)
def test_adapters_hold_what_a_model_promises(name, method):
    ids, anchor = example_ids(), FAMILIES[name]()
    before = logits(anchor, ids)
    model = adapt(anchor, method, parameters=3000)
    if method != "prefix":
        assert torch.equal(logits(model, ids), before)
    expected = logits(trained(model), ids)
    assert (expected - before).abs().max() > 0.1
    wide, mask = padded(ids, 3, 2)
    close(logits(model, wide, attention_mask=mask)[:, 3:-2], expected)
    prompt, mask = padded(ids[:, : WINDOW - 1], 3, 0)
    settings = {"attention_mask": mask, "max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0}
    cached, uncached = (model.generate(prompt, use_cache=use, do_sample=False, **settings) for use in (True, False))
    assert torch.equal(cached, uncached)
    loss = model(ids, labels=ids).loss
    training_loss = model.train()(ids, labels=ids).loss
    torch.testing.assert_close(training_loss, loss)
    training_loss.backward()
    touched = {n for n, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert touched == set(model.trained_parameters())


@pytest.mark.parametrize("name", sorted(OWN_ATTENTION))
def test_prefixes_are_refused_where_attention_is_out_of_reach(name):
    with pytest.raises(UserError, match="computes attention in a way of its own"):
        adapt(FAMILIES[name](), "prefix", size=4)


def test_no_logit_depends_on_a_later_token_with_a_prefix():
    for attention in ("eager", "sdpa"):
        model, ids = trained(adapt(llama(attn_implementation=attention), "prefix", size=5)), example_ids()
        changed = ids.clone()
        changed[:, 5:] = 7
        assert torch.equal(logits(model, ids)[:, :5], logits(model, changed)[:, :5])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_prefix_and_a_static_cache_go_together(attention):
    """The cache has room for later tokens, which the first ones must not see."""
    model, ids = trained(adapt(llama(attn_implementation=attention), "prefix", size=5)), example_ids()
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=12)
    parts = [logits(model, part, past_key_values=cache, use_cache=True) for part in (ids[:, :5], ids[:, 5:6])]
    close(torch.cat(parts, 1), logits(model, ids[:, :6]))


@pytest.mark.parametrize("method", ADAPTERS)
def test_adapters_are_float32_whatever_the_anchor_is(method, tmp_path):
    """In bfloat16 small steps of training would round to nothing; a checkpoint keeps what was trained."""
    llama().to(torch.bfloat16).save_pretrained(tmp_path / "anchor")
    model, ids = adapt(str(tmp_path / "anchor"), method, size=3), example_ids()
    assert {parameter.dtype for parameter in trained(model).trained_parameters().values()} == {torch.float32}
    assert model.anchor.dtype == logits(model, ids).dtype == torch.bfloat16
    model.train()(ids, labels=ids).loss.backward()
    model.eval().save_pretrained(tmp_path / "adapted")
    loaded = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted")
    assert {parameter.dtype for parameter in loaded.trained_parameters().values()} == {torch.float32}
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    converted = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in converted.parameters()} == {torch.bfloat16}
    # Rotary frequencies stay exact, as in any model of transformers: rounded, far positions would be elsewhere.
    rotary = converted.anchor.model.rotary_emb.inv_freq
    assert torch.equal(rotary, llama().model.rotary_emb.inv_freq)


def test_a_new_prefix_of_any_length_leaves_the_anchor_nearly_as_it_is():
    ids, anchor = example_ids(), FAMILIES["Llama"]()
    expected = logits(anchor, ids).softmax(-1)
    for size in (4, 300):
        found = logits(adapt(FAMILIES["Llama"](), "prefix", size=size), ids).softmax(-1)
        assert (found - expected).abs().sum(-1).mean() < 0.2


# Parameters.


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "GPT-NeoX"])
@pytest.mark.parametrize("method", ADAPTERS)
def test_parameters_match_a_composition_within_two_percent(name, method):
    composition = composed(FAMILIES[name](), llama(seed=2, width=16, heads=2, kv_heads=1), connections=[[1, 0]])
    target = sum(parameter.numel() for parameter in composition.composition_parameters().values())
    model = adapt(FAMILIES[name](), method, parameters=target)
    found = sum(parameter.numel() for parameter in model.trained_parameters().values())
    assert abs(difference_percent(found, target)) < 2
    assert max(model.config.sizes.values()) - min(model.config.sizes.values()) <= 1


@pytest.mark.parametrize("units, target, sizes", [
    ({"a": 10, "b": 10}, 40, {"a": 2, "b": 2}),
    ({"a": 10, "b": 10}, 52, {"a": 3, "b": 2}),
    ({"a": 10, "b": 10}, 58, {"a": 3, "b": 3}),
    ({"a": 4, "b": 10}, 31, {"a": 3, "b": 2}),
    ({"a": 4, "b": 10}, 10, {"b": 1}),
])  # fmt: skip
def test_sizes_come_as_near_as_one_more_for_some_can(units, target, sizes):
    assert matched_sizes(units, target) == sizes


def test_too_few_parameters_are_one_clear_error():
    with pytest.raises(UserError, match="3 trainable parameters are too few"):
        matched_sizes({"a": 10}, 3)
    with pytest.raises(UserError, match=r"cannot be had: the nearest .* 60 \(\+7.1 percent; 5 count as equal\)"):
        matched_sizes({"a": 10, "b": 10}, 56)


@pytest.mark.parametrize("wanted", [{"parameters": 10**9}, {"size": 10**6}])
@pytest.mark.parametrize("method", ADAPTERS)
def test_adapters_larger_than_the_anchor_are_refused_before_they_are_made(method, wanted):
    with pytest.raises(UserError, match=r"\d+ trainable parameters are more than the whole anchor has \(31072\)"):
        adapt(llama(), method, **wanted)


def test_where_chooses_the_blocks():
    sizes = {where: adapt(llama(), "series", size=2, where=where).config.sizes for where in ("attention", "both")}
    assert len(sizes["both"]) == 2 * len(sizes["attention"]) == 6
    assert all(name.endswith("self_attn") for name in sizes["attention"])


# What is stored.


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
        model = trained(adapt(FAMILIES[name](), "lora", size=3))
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


@pytest.mark.parametrize("method", ["lora", "prefix", "parallel"])
def test_completions_do_not_depend_on_batches_or_shared_shots(folder, method):
    tokenizer = AutoTokenizer.from_pretrained(folder / "anchor")
    model = trained(adapt(str(folder / "anchor"), method, size=4))
    shots = ("solve: 1 + 2 = 3 ", "solve: 12 - 4 = 8 ")
    asked = [Request("", text, 5, shots=shots) for text in ("solve: 1 + 2 =", "solve: 12 + 33 - 4 =", "9")]
    found = []
    for batch_size, share in ((3, True), (3, False), (1, True)):
        engine = Engine(model, tokenizer, Decoding(batch_size=batch_size), share_prefixes=share)
        samples = [sample for batch in engine.generate(fit(model, tokenizer, asked)) for sample in batch]
        found.append({sample.prompt_index: sample.text for sample in samples})
    assert found[0] == found[1] == found[2]


def test_gradient_checkpointing_gives_the_same_gradients():
    ids, found = example_ids(), []
    for enabled in (False, True):
        model = trained(adapt(llama(), "parallel", size=3)).train()
        if enabled:
            checkpointing(model, True)
        model(ids, labels=ids).loss.backward()
        found.append([parameter.grad for parameter in model.trained_parameters().values()])
    torch.testing.assert_close(*found)


# What bad input gets.


@pytest.mark.parametrize("settings, message", [
    ({"method": "lara"}, "method='lara' is not one of lora, prefix"),
    ({"anchor": ""}, "anchor is not set; give --anchor"),
    ({"dataset": ""}, "dataset is not set; give --data"),
    ({"parameters": 0}, "nothing is given; give one of"),
    ({"size": 2}, "parameters and size is given; give one of"),
    ({"parameters": 0, "match": "nowhere"}, "nowhere is no run directory"),
    ({"method": "full", "size": 2}, "size: method full trains the whole anchor"),
    ({"method": "prefix", "where": "both"}, "prefix tuning acts on attention only"),
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


def test_adapted_models_are_no_bases(folder):
    model = adapt(llama(), "series", size=2)
    with pytest.raises(UserError, match="itself composed or adapted"):
        adapt(model, "lora", size=2)
    with pytest.raises(UserError, match="frozen model with adapters"):
        composed(model, llama(seed=2))
