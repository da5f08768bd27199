"""What the engine finds out about a model: its completions and likelihoods are those of each row alone."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from calmctl.errors import UserError
from calmctl.inference import continuation, likelihood, reading
from calmctl.inference.generation import complete
from calmctl.inference.prompt import fit
from calmctl.inference.reading import _Trial, reading_of
from calmctl.inference.settings import Decoding
from calmctl.modeling import probe
from calmctl.modeling.context import context_length
from calmctl.modeling.probe import tolerance
from evals import Request
from tests.families import FAMILIES, SPECIAL, modern
from tests.model_types import tiny_model
from tests.model_verdicts import REFERENCES, TEXTS, asked, bits_alone, completions, completions_alone, word_tokenizer
from tests.models import VOCABULARY, composed, gpt2, llama, randomised
from tests.scored import bits_of
from tests.task_data import byte_tokenizer

WAYS = {
    "llama": "padded batches, continued caches",
    "mistral": "padded batches",
    "mamba": "padded batches",
    "recurrent_gemma": "batches of equal lengths",
    "roformer": "batches of equal lengths",
    "prophetnet": "batches of equal lengths",
    "rwkv": "one row at a time",
}
READS_AHEAD = ("roformer", "prophetnet", "xlnet", "bert")


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


@pytest.mark.parametrize("model_type", WAYS)
def test_completions_are_those_of_each_prompt_alone(model_type, tokenizer):
    model = tiny_model(model_type)
    assert completions(model, tokenizer, asked()) == completions_alone(model, tokenizer, asked())
    assert str(reading_of(model, tokenizer)) == WAYS[model_type]


@pytest.mark.parametrize("window, way", [(16, ""), (20, ", continued caches"), (60, ", continued caches")])
def test_rows_within_a_sliding_window_continue_a_cache(window, way, tokenizer, monkeypatch):
    config = AutoConfig.for_model("mistral", vocab_size=VOCABULARY, **SPECIAL, **modern(sliding_window=window))
    model = randomised(AutoModelForCausalLM.from_config(config))
    assert str(reading_of(model, tokenizer)) == f"padded batches{way}"
    monkeypatch.setattr(continuation, "STRETCH", 2)
    prompts = [replace(each, max_new_tokens=14) for each in asked()]
    longest = max(map(len, fit(model, tokenizer, prompts).ids)) + 14
    assert 20 < longest <= 60
    assert completions(model, tokenizer, prompts, 2) == completions_alone(model, tokenizer, prompts)


@pytest.mark.parametrize("model_type", WAYS)
def test_likelihoods_are_those_of_each_text_alone_or_refused(model_type, tokenizer):
    model = tiny_model(model_type)
    if model_type in READS_AHEAD:
        with pytest.raises(UserError, match="attends to later tokens, so its likelihoods are those of texts that it"):
            list(bits_of(model, tokenizer, TEXTS, REFERENCES, 3))
        return
    found = dict(bits_of(model, tokenizer, TEXTS, REFERENCES, 3))
    assert [found[place] for place in range(len(TEXTS))] == pytest.approx(bits_alone(model, tokenizer), rel=1e-4)


def test_a_model_is_tried_once_and_left_as_it_was(tokenizer, monkeypatch):
    model, chance, tried = llama(), torch.get_rng_state(), []
    settings, forward = model.generation_config, model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: tried.append(1) or forward(*args, **kwargs))
    assert reading_of(model, tokenizer) is reading_of(model, tokenizer)
    assert 0 < len(tried) < 30
    assert torch.equal(torch.get_rng_state(), chance) and model.generation_config is settings
    count = len(tried)
    reading_of(model.bfloat16(), tokenizer)
    assert len(tried) > count


@pytest.mark.parametrize(
    "build", [composed, lambda: composed(aug_reads="prompt"), gpt2], ids=["all", "prompts", "gpt2"]
)
def test_models_of_frozen_parts_go_on_from_caches(build, tokenizer):
    assert str(reading_of(build(), tokenizer)) == WAYS["llama"]


def test_a_model_whose_answers_are_chance_is_refused(tokenizer):
    model = llama()
    model.lm_head.register_forward_hook(lambda _module, _args, output: output + torch.randn_like(output))
    with pytest.raises(UserError, match="^LlamaForCausalLM computes other logits each time that it reads a prompt"):
        reading_of(model, tokenizer)


def test_a_model_that_completes_nothing_is_refused(tokenizer):
    model = llama()
    model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(UserError, match="^LlamaForCausalLM cannot complete a prompt: ZeroDivisionError: division"):
        reading_of(model, tokenizer)


# What a model can read: with so many tokens it works, with one more it does not, where it looks positions up.
CONTEXTS = {
    "gpt2": 64, "opt": 64, "biogpt": 64, "bert": 64, "llama": 64, "mpt": 64, "openai-gpt": 64, "codegen": 64,
    "roberta": 63, "xlm-roberta": 63, "camembert": 63, "mamba": None, "rwkv": 1024, "xlnet": None, "bloom": None,
}  # fmt: skip
TABLES = ("gpt2", "opt", "biogpt", "bert", "openai-gpt", "roberta", "xlm-roberta", "camembert")


@pytest.mark.parametrize("model_type", CONTEXTS)
def test_the_context_is_as_long_as_a_model_can_read(model_type):
    model = tiny_model(model_type)
    length = context_length(model)
    assert length == CONTEXTS[model_type]
    with torch.no_grad():
        assert model(torch.full((1, length or 80), 7)).logits.isfinite().all()
        if model_type in TABLES:
            with pytest.raises((IndexError, RuntimeError)):
                model(torch.full((1, length + 1), 7))


def test_the_shortest_context_of_all_bases_counts():
    aug = llama(seed=2)
    aug.config.max_position_embeddings = 20
    assert context_length(composed(llama(seed=1), [gpt2(), aug])) == 20


@pytest.mark.parametrize("place", ["anchor", "aug"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_shared_where_a_base_counts_places_whatever_the_bridges_show(place, dtype):
    tokenizer, bases = byte_tokenizer(), [FAMILIES["MPT"](1), llama(2, layers=2)]
    for base in bases:
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = composed(*(bases if place == "anchor" else bases[::-1]), num=2, trained=False).to(dtype)
    assert str(reading_of(model, tokenizer)) == "padded batches"


def test_a_model_is_tried_again_once_its_bridges_are_open(monkeypatch):
    tokenizer, model, trials = byte_tokenizer(), composed(trained=False), []
    monkeypatch.setattr(reading, "_Trial", lambda *given: trials.append(given) or _Trial(*given))
    for number, open_them in ((1, False), (1, False), (2, True), (2, True)):
        if open_them:
            for parameter in model.composition_parameters().values():
                torch.nn.init.ones_(parameter)
        reading_of(model, tokenizer)
        assert len(trials) == number


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rounding_in_16_bits_keeps_no_rows_apart(dtype, tokenizer, monkeypatch):
    """In 16 bits everything lies too far apart here; what is tried again in float32 does not."""
    for module in (reading, likelihood):
        monkeypatch.setattr(module, "tolerance", lambda bases: -1.0 if bases[0].dtype == dtype else tolerance(bases))
    model = tiny_model("llama").to(dtype)
    before = {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in model.state_dict().items()}
    # The first trial compares a prompt with itself, which no type makes different.
    monkeypatch.setattr(reading, "deviation", lambda *given: probe.deviation(*given) or -2.0)
    assert str(reading_of(model, tokenizer)) == WAYS["llama"]
    list(bits_of(model, tokenizer, TEXTS, REFERENCES, 3))
    assert likelihood._way_of(model).together == "padded"
    assert {name: (tensor.data_ptr(), tensor.dtype) for name, tensor in model.state_dict().items()} == before


def test_faults_in_16_bits_are_faults_in_float32(tokenizer):
    model = tiny_model("roformer").bfloat16()
    assert str(reading_of(model, tokenizer)) == WAYS["roformer"]


def test_what_does_not_fit_in_float32_is_tried_in_16_bits_only(tokenizer, monkeypatch):
    for available, dtypes in ((2**40, [torch.float32]), (0, [torch.bfloat16])):
        tried, room = [], type("Room", (), {"available": available})
        monkeypatch.setattr(probe.psutil, "virtual_memory", lambda room=room: room)
        monkeypatch.setattr(reading, "tolerance", lambda bases, tried=tried: tried.append(bases[0].dtype) or 0.1)
        reading_of(tiny_model("llama").bfloat16(), tokenizer)
        assert tried[:1] == dtypes


def test_what_fails_in_16_bits_alone_is_not_done_in_them(tokenizer):
    """Padding is passed over in float32 and makes numbers that are none in 16 bits: rows of equal lengths are left."""
    model = tiny_model("llama").bfloat16()

    def spoil(_module, _args, kwargs, output):
        mask = kwargs.get("attention_mask")
        if output.logits.dtype == torch.bfloat16 and mask is not None and not bool((mask != 0).all()):
            output.logits.fill_(float("nan"))
        return output

    model.register_forward_hook(spoil, with_kwargs=True)
    assert str(reading_of(model, tokenizer)) == "batches of equal lengths"


def test_chance_in_float32_is_not_overlooked_in_16_bits(tokenizer):
    model = tiny_model("llama").bfloat16()
    model.lm_head.register_forward_hook(lambda _module, _args, output: output + 0.02 * torch.randn_like(output))
    with pytest.raises(UserError, match="computes other logits each time that it reads a prompt"):
        reading_of(model, tokenizer)


@pytest.mark.parametrize("build", [composed, llama, gpt2])
def test_the_head_reads_its_input_in_one_piece(build):
    """Of a slice, torch would copy the head's weights for every row."""
    model, tokenizer, read = build(), byte_tokenizer(), []
    for base in [model] if build is not composed else model.bases():
        base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _module, args, _output: read.append((args[0].shape, args[0].is_contiguous())))
    complete(
        model, tokenizer, [Request("", "some words", 4), Request("", "more of these words", 4)], Decoding(batch_size=2)
    )
    assert read and all(is_contiguous for _, is_contiguous in read)
    assert {shape[:2] for shape, _ in read if shape[0] == 2} == {(2, 1)}
