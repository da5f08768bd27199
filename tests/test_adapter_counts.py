"""Adapters in mixtures of experts and latent attention: as many parameters as planned, stored and read again, or no."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from calmctl import AdaptedModelForCausalLM, adapt
from calmctl.baselines import methods
from calmctl.baselines.methods import ADAPTERS, options_for
from calmctl.baselines.options import AdapterOptions
from calmctl.errors import UserError
from tests.families import FAMILIES, modern
from tests.models import VOCABULARY, example_ids, llama, logits

EXPERTS = {"num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
SHARED = {
    **EXPERTS, "moe_intermediate_size": 16, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1, "shared_expert_intermediate_size": 16, "decoder_sparse_step": 1,
}  # fmt: skip
LATENT = {
    **SHARED, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
    "num_key_value_heads": 4, "head_dim": 8,
}  # fmt: skip
# model_type -> settings: dense and shared layers beside experts, fused routers, latent attention, one key-value head.
TYPES = {
    "qwen2_moe": SHARED,
    "glm4_moe": SHARED,
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "llama4_text": {**EXPERTS, "interleave_moe_layer_step": 2, "head_dim": 8, "intermediate_size_mlp": 32},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "multi_query": True},
}
IN_EVERY_RUN = {("glm4_moe", "lora"), ("deepseek_v3", "prefix"), ("llama4_text", "parallel")}
CASES = [
    pytest.param(name, method, marks=() if (name, method) in IN_EVERY_RUN else pytest.mark.slow, id=f"{name}-{method}")
    for name in (*TYPES, *FAMILIES)
    for method in ADAPTERS
    if method != "p_tuning"  # its encoder is larger than these models
]


def build(name: str) -> PreTrainedModel:
    if name in FAMILIES:
        return FAMILIES[name]()
    torch.manual_seed(1)
    own = TYPES[name] if name == "gpt_bigcode" else {**modern(2), **TYPES[name]}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, vocab_size=VOCABULARY, **special, **own))
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.1 + (parameter.ndim == 1)
    return model.eval()


@pytest.mark.parametrize("name, method", CASES)
def test_a_method_trains_what_was_planned_or_is_refused(name, method, tmp_path):
    adapter, ids = ADAPTERS[method], example_ids()
    build(name).save_pretrained(tmp_path / "anchor")
    try:
        model = adapt(str(tmp_path / "anchor"), method, size=3)
    except UserError as error:
        # Attention that prefixes cannot reach, and narrow embeddings, are all that any of these methods does without.
        is_prefix = method == "prefix" and "computes attention in a way of its own" in str(error)
        assert is_prefix or (adapter.is_prompt and "cannot have virtual tokens" in str(error)), error
        return
    planned = adapter.parameters(build(name), model.config.sizes, options_for(method, AdapterOptions()))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == planned
    model.train()(ids, labels=ids).loss.backward()
    torch.optim.SGD(trained, lr=0.5).step()
    model.eval().save_pretrained(tmp_path / "adapted")
    loaded = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted")
    assert torch.equal(logits(loaded, ids), logits(model, ids))


@pytest.mark.parametrize("attach, message", [
    (lambda *_: torch.nn.ModuleDict({"more": torch.nn.Linear(1, 1)}), "would train 2 parameters, .* asked"),
    (lambda *_: 1 / 0, "does not work on a LlamaForCausalLM .*division"),
], ids=["count", "crash"])  # fmt: skip
def test_another_count_than_planned_is_refused(attach, message, monkeypatch):
    monkeypatch.setitem(methods.ADAPTERS, "series", replace(ADAPTERS["series"], attach=attach))
    with pytest.raises(UserError, match=message):
        adapt(llama(), "series", size=2)
