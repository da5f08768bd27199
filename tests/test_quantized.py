"""Bases in 8 and 4 bits (bitsandbytes), on a CPU: composed, trained, saved and recognised again."""

import pytest
import torch
from transformers import BitsAndBytesConfig

from calmctl.errors import UserError
from calmctl.modeling.composed import ComposedModelForCausalLM
from tests.models import composed, example_ids, llama, logits

pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed: pip install 'calmctl[quantized]'")

EIGHT_BITS = {"load_in_8bit": True}
FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}


@pytest.fixture(params=[EIGHT_BITS, FOUR_BITS], ids=["8bit", "4bit"])
def quantization(request) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(**request.param)


@pytest.fixture
def model(tmp_path, quantization) -> ComposedModelForCausalLM:
    for name, seed in (("anchor", 1), ("aug", 2)):
        llama(seed=seed, width=64).save_pretrained(tmp_path / name)
    return composed(str(tmp_path / "anchor"), str(tmp_path / "aug"), quantization_config=quantization)


def test_quantised_bases_train_float_bridges(model):
    assert {parameter.dtype for parameter in model.composition_parameters().values()} == {torch.float32}
    ids = example_ids()
    before = logits(model.anchor, ids)
    optimizer = torch.optim.SGD(model.composition_parameters().values(), lr=0.1)
    model.train()
    losses = []
    for _ in range(5):
        loss = model(ids, labels=ids).loss
        loss.backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.composition_parameters().values())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert torch.equal(logits(model.anchor, ids), before)
    model.eval()
    assert model.generate(ids, max_new_tokens=3).shape == (3, 12)


def gradients(model: ComposedModelForCausalLM) -> dict[str, torch.Tensor]:
    for layer in model.anchor.model.layers:  # so that what passes the layers outweighs what passes by them
        layer.input_layernorm.weight.data *= 8
        layer.post_attention_layernorm.weight.data *= 8
    model.train()
    model(example_ids(), labels=example_ids()).loss.backward()
    return {name: parameter.grad.flatten() for name, parameter in model.composition_parameters().items()}


def test_gradients_pass_through_quantised_layers(model, tmp_path):
    """They are the unquantised anchor's but for rounding; without its layers they would point elsewhere (0.25)."""
    exact = gradients(composed(str(tmp_path / "anchor"), str(tmp_path / "aug")))
    for name, gradient in gradients(model).items():
        assert torch.cosine_similarity(gradient, exact[name], dim=0) > 0.7, name


def test_quantised_bases_are_quantised_again_and_recognised(model, tmp_path):
    ids = example_ids()
    expected = logits(model, ids)
    model.save_pretrained(tmp_path / "composed")
    loaded = ComposedModelForCausalLM.from_pretrained(tmp_path / "composed")
    assert torch.equal(logits(loaded, ids), expected)
    assert "float32, bitsandbytes" in (tmp_path / "composed" / "README.md").read_text()
    with pytest.raises(UserError, match=r"the anchor .* \(differs in quantization_config, weights_sha256\)"):
        ComposedModelForCausalLM.from_pretrained(tmp_path / "composed", quantization_config=None)
    llama(seed=7, width=64).save_pretrained(tmp_path / "aug")
    with pytest.raises(UserError, match=r"the aug .* \(differs in weights_sha256\)"):
        ComposedModelForCausalLM.from_pretrained(tmp_path / "composed")


def test_another_quantisation_is_another_base(model, tmp_path, quantization):
    model.save_pretrained(tmp_path / "composed")
    other = {"llm_int8_threshold": 3.0} if quantization.load_in_8bit else {"bnb_4bit_quant_type": "nf4"}
    changed = BitsAndBytesConfig(**(EIGHT_BITS if quantization.load_in_8bit else FOUR_BITS), **other)
    with pytest.raises(UserError, match=r"\(differs in quantization_config\)"):
        ComposedModelForCausalLM.from_pretrained(tmp_path / "composed", quantization_config=changed)
    loaded = ComposedModelForCausalLM.from_pretrained(
        tmp_path / "composed", quantization_config=changed, allow_different_base=True, dtype="bfloat16"
    )
    assert torch.isfinite(logits(loaded, example_ids())).all()
