"""What must hold of a composed model in training: its loss, frozen bases, no wasted work."""

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from calmctl.modeling import loss
from calmctl.modeling.bases.fingerprint import weights_sha256
from calmctl.modeling.layers import decoder_layers
from tests.models import VOCABULARY, composed, example_ids, gpt2, llama, logits


@pytest.fixture
def ids() -> Tensor:
    return example_ids()


@pytest.mark.parametrize("optimizer", ["fused", "plain", "data"])
def test_generation_follows_training_at_once(ids, optimizer):
    """Whatever is kept between calls must not outlive the weights it was made from."""
    model = composed()
    before = logits(model, ids)
    model.generate(ids, max_new_tokens=3)
    if optimizer == "data":
        for parameter in model.composition_parameters().values():
            parameter.data.mul_(1.5)
    else:
        adamw = torch.optim.AdamW(model.composition_parameters().values(), lr=0.1, fused=optimizer == "fused")
        model.train()(ids, labels=ids).loss.backward()
        adamw.step()
        model.eval()
    twin = composed(trained=False)
    twin.bridges.load_state_dict(model.bridges.state_dict())
    torch.testing.assert_close(logits(model, ids), logits(twin, ids))
    assert not torch.allclose(logits(model, ids), before)
    assert torch.equal(model.generate(ids, max_new_tokens=6), twin.generate(ids, max_new_tokens=6))


def test_bases_stay_frozen_in_eval_mode_and_bit_identical_through_training(ids):
    model = composed(gpt2(1), gpt2(2))
    before = [weights_sha256(base.state_dict()) for base in (model.anchor, *model.augs)]
    model.train()
    assert not model.anchor.training and not any(aug.training for aug in model.augs) and model.bridges.training
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == set(model.composition_parameters())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    first = model(ids, labels=ids).loss
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    assert loss < first
    assert all(p.grad is not None for p in model.composition_parameters().values())
    assert [weights_sha256(base.state_dict()) for base in (model.anchor, *model.augs)] == before


def test_training_loss_is_the_loss_of_the_full_logits(ids):
    model, labels = composed(), ids.clone()
    labels[:, :4], labels[0] = -100, -100
    full = model.eval()(ids, labels=labels)
    trained = model.train()(ids, labels=labels)
    torch.testing.assert_close(trained.loss, full.loss, atol=1e-6, rtol=1e-5)
    expected = torch.nn.functional.cross_entropy(full.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(full.loss, expected)


@pytest.mark.parametrize("family, settings", [
    ("llama", {}),
    ("gemma2", {"final_logit_softcapping": 2.0, "head_dim": 8}),
    ("cohere", {"logit_scale": 0.5}),
    ("granite", {"logits_scaling": 4.0}),
    ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
])  # fmt: skip
def test_the_loss_in_chunks_is_the_loss_of_all_logits(ids, family, settings, monkeypatch):
    torch.manual_seed(1)
    anchor = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            family, vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=1, **settings,
        )
    )  # fmt: skip
    model, labels = composed(anchor), ids.clone()
    labels[:, :2], labels[0] = -100, -100
    chunks = []
    model.get_output_embeddings().register_forward_hook(lambda _m, args, _o: chunks.append(args[0].shape[1]))
    parameters = list(model.composition_parameters().values())
    full = model.eval()(ids, labels=labels, num_items_in_batch=7).loss
    expected = torch.autograd.grad(full, parameters)
    monkeypatch.setattr(loss, "CHUNK_ELEMENTS", 5 * VOCABULARY)
    chunked = model.train()(ids, labels=labels, num_items_in_batch=7).loss
    assert chunks == [9, 5, 5, 4]
    torch.testing.assert_close(chunked, full)
    torch.testing.assert_close(torch.autograd.grad(chunked, parameters), expected, atol=1e-5, rtol=1e-4)


def test_a_batch_without_labels_has_no_loss(ids):
    loss = composed().train()(ids, labels=torch.full_like(ids, -100)).loss
    loss.backward()
    assert loss == 0


def test_only_labelled_rows_reach_the_head(ids):
    model, seen = composed().train(), []
    labels = torch.full_like(ids, -100)
    labels[:, -2:] = ids[:, -2:]
    model.get_output_embeddings().register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[:-1].numel()))
    model(ids, labels=labels)
    assert seen == [6]


def test_the_aug_runs_without_graph_head_or_untapped_layers(ids):
    aug = llama(seed=2, layers=4, width=16, heads=2, kv_heads=1)
    model, ran = composed(aug=aug, connections=[[1, 1]]).train(), []
    for index, layer in enumerate(decoder_layers(aug)):
        layer.register_forward_hook(lambda _m, _a, output, index=index: ran.append((index, output.requires_grad)))
    aug.lm_head.register_forward_hook(lambda *_: ran.append(("head", True)))
    model(ids, labels=ids)
    assert ran == [(0, False), (1, False)]


def test_anchor_layers_before_the_first_connection_keep_no_graph(ids):
    model, graphs = composed(connections=[[0, 1]]).train(), []
    for layer in decoder_layers(model.anchor):
        layer.register_forward_hook(lambda _m, _a, output: graphs.append(output.requires_grad))
    model(ids, labels=ids)
    assert graphs == [False, True, True]


def test_the_loss_while_training_needs_no_gradients(ids):
    model = composed().train()
    expected = model(ids, labels=ids).loss
    with torch.inference_mode():
        torch.testing.assert_close(model(ids, labels=ids).loss, expected)
