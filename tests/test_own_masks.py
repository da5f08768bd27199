"""Decoders told token by token what to attend to: as if each token stood at the end of its own text."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from calmctl.modeling.own_masks import why_no_own_masks
from tests.branching import AT_ONCE, IN_STEPS, LENGTH, branching, deviation
from tests.families import FAMILIES, SETTINGS, SPECIAL, WINDOW, modern
from tests.model_types import WITHOUT_TINY_MODEL, model_types, tiny_model
from tests.model_verdicts import PAGE, stated
from tests.models import VOCABULARY, llama, randomised

TOLD = (
    "Llama", "Gemma 2", "Gemma 3", "Gemma 4", "Qwen2", "Mistral", "GPT-2", "GPT-J", "OPT", "Falcon, rotary", "Phi-3",
)  # fmt: skip
REFUSED = {"BLOOM": "finds positions by itself", "MPT": "finds positions", "Falcon, alibi": "ALiBi"}
CHUNKED = {"attention_chunk_size": WINDOW, "no_rope_layers": [1, 0, 1], "num_local_experts": 2, "head_dim": 8}
BASES = sorted(
    name for name, cells in stated(PAGE.read_text()).items() if cells[1] == "yes" and name not in WITHOUT_TINY_MODEL
)


def llama4(**settings: object) -> AutoModelForCausalLM:
    """Return a tiny Llama 4, whose layers attend within chunks."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        "llama4_text", vocab_size=VOCABULARY, intermediate_size_mlp=32, **SPECIAL, **modern(), **CHUNKED, **settings
    )
    return randomised(AutoModelForCausalLM.from_config(config)).eval()


@pytest.mark.parametrize("implementation", [None, "eager"])  # None: the fused kernel, where there is one
@pytest.mark.parametrize("family", TOLD)
def test_each_token_is_read_as_at_the_end_of_its_own_text(family, implementation):
    model = FAMILIES[family](attn_implementation=implementation)
    assert why_no_own_masks(model) == ""
    assert deviation(model, AT_ONCE) < 1e-5
    assert deviation(model, IN_STEPS) < 1e-5


def test_a_mask_that_shows_other_branches_is_noticed():
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().expand_as(branching()[1])
    assert deviation(FAMILIES["Llama"](), AT_ONCE, causal) > 0.01


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_half_precision(implementation):
    model = FAMILIES["Gemma 3"](attn_implementation=implementation).to(torch.bfloat16)
    assert deviation(model, AT_ONCE) < 0.05
    assert deviation(model, IN_STEPS) < 0.05


def test_chunks_go_by_positions():
    model = llama4(attn_temperature_tuning=False)
    assert why_no_own_masks(model) == ""
    assert deviation(model, AT_ONCE) < 1e-5
    assert deviation(model, IN_STEPS) < 1e-5


def test_scaling_by_the_place_in_the_row_is_refused():
    model = llama4(attn_temperature_tuning=True, floor_scale=2)
    assert deviation(model, AT_ONCE) > 1e-4
    assert "attn_temperature_tuning" in why_no_own_masks(model)


def test_a_window_that_the_decoder_does_not_know_is_none():
    model = llama(sliding_window=WINDOW).eval()
    assert deviation(model, AT_ONCE) < 1e-5


@pytest.mark.parametrize("family", REFUSED)
def test_why_not_shows_without_weights(family):
    model_type, settings = SETTINGS[family]
    with torch.device("meta"):
        config = AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **SPECIAL, **settings)
        model = AutoModelForCausalLM.from_config(config)
    assert REFUSED[family] in why_no_own_masks(model)


def test_other_implementations_of_attention_are_named():
    model = llama()
    model.config._attn_implementation = "flex_attention"
    assert "attn_implementation=flex_attention" in why_no_own_masks(model)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(set(BASES) & set(model_types())))
def test_every_type_that_can_be_a_base_is_told_or_refused_rightly(model_type):
    model = tiny_model(model_type)
    if why_no_own_masks(model):
        try:
            assert max(deviation(model, AT_ONCE), deviation(model, IN_STEPS)) > 1e-4
        except (KeyError, ValueError):
            pass  # it does not take such a mask, or such a cache, at all
    else:
        assert deviation(model, AT_ONCE) < 1e-5
        assert deviation(model, IN_STEPS) < 1e-5
