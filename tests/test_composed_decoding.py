"""Decoding and training as transformers offers it: static caches, assistants, streams, checkpointing, compilation."""

import copy
import gc

import pytest
import torch
from torch import Tensor
from transformers import TextStreamer

from calmctl.errors import UserError
from calmctl.modeling.layers import decoder_layers
from tests.families import FAMILIES
from tests.models import FORMS, checkpointing, composed, example_ids, gpt2, llama, logits, padded


@pytest.fixture
def ids() -> Tensor:
    return example_ids()


@pytest.fixture(params=FORMS, ids=str)
def model(request):
    return composed(**FORMS[request.param])


@pytest.mark.parametrize("settings", [
    {"do_sample": False},
    {"do_sample": False, "num_beams": 3, "num_return_sequences": 2},
    {"do_sample": True, "top_k": 5},
], ids=["greedy", "beam", "sampling"])  # fmt: skip
def test_a_static_cache_generates_what_a_growing_one_does(model, ids, settings):
    wide, mask = padded(ids, 3, 0)
    mask[0, :3] = 1
    outputs = []
    for implementation in ("dynamic", "static"):
        torch.manual_seed(5)
        outputs.append(
            model.generate(
                wide, attention_mask=mask, max_new_tokens=7, pad_token_id=0, cache_implementation=implementation,
                **settings,
            )
        )  # fmt: skip
    assert torch.equal(*outputs)


def test_a_static_cache_has_a_fixed_size_and_is_emptied_in_place(ids):
    model = composed()
    cache = model.new_cache(max_cache_len=20)
    expected = logits(model, ids)
    for _ in range(2):
        torch.testing.assert_close(logits(model, ids, past_key_values=cache), expected, atol=2e-5, rtol=1e-4)
        assert {layer.keys.shape[2] for layer in cache.layers if layer.is_initialized} == {20}
        assert cache.get_seq_length() == 9
        cache.reset()


def test_other_caches_are_refused_by_name(ids):
    with pytest.raises(UserError, match="'quantized': this model has dynamic and static"):
        composed().generate(ids, max_new_tokens=2, cache_implementation="quantized")


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("Mistral", "GPT-2", "Gemma 2")]


@pytest.mark.parametrize("name", ["Llama", "Gemma 4", *SLOW])
def test_assisted_decoding_equals_greedy_decoding(name, ids):
    """In every form, with sliding windows that are full, and keys that layers share; as target and as assistant."""
    anchor, settings = FAMILIES[name](1), {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    model = composed(anchor, FAMILIES[name](2), connections=[[0, 0], [1, 2]])
    alone, expected = (each.generate(ids[:1], **settings) for each in (anchor, model))
    assert not torch.equal(alone, expected)
    draft = composed(anchor, FAMILIES[name](2), connections=[[0, 1]])
    helps = [{"assistant_model": anchor}, {"assistant_model": llama(seed=7)}, {"assistant_model": draft},
             {"prompt_lookup_num_tokens": 2}, {"assistant_early_exit": 1}]  # fmt: skip
    for how in helps:
        assert torch.equal(model.generate(ids[:1], **how, **settings), expected), how
    assert torch.equal(anchor.generate(ids[:1], assistant_model=model, **settings), alone)
    assert torch.equal(model.generate(ids[:1], **settings), expected)


def test_drafts_of_the_first_layers_are_those_of_a_model_with_no_more(ids):
    model = composed(connections=[[0, 0], [1, 2]])
    shallow = composed(llama(seed=1, layers=2), connections=[[0, 0]])
    shallow.anchor.load_state_dict(model.anchor.state_dict(), strict=False)
    shallow.bridges[0][0].load_state_dict(model.bridges[0][0].state_dict())
    full, model.config.num_hidden_layers = logits(model, ids), 2
    torch.testing.assert_close(logits(model, ids), logits(shallow, ids))
    model.config.num_hidden_layers = 3
    assert torch.equal(logits(model, ids), full)


def test_a_draft_that_is_interrupted_leaves_the_model_whole(ids):
    model = composed()
    expected = logits(model, ids)
    handle = model.anchor.model.layers[0].register_forward_hook(_interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.generate(ids[:1], assistant_early_exit=1, max_new_tokens=3)
    handle.remove()
    assert torch.equal(logits(model, ids), expected)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_streamer_gets_every_token(ids):
    class Digits:
        def decode(self, token_ids, **_):
            return " ".join(map(str, [token_ids] if isinstance(token_ids, int) else token_ids)) + "\n"

    class Collector(TextStreamer):
        text = ""

        def on_finalized_text(self, text, stream_end=False):
            self.text += text

    model, collector = composed(), Collector(Digits(), skip_prompt=True)
    output = model.generate(ids[:1], max_new_tokens=5, do_sample=False, streamer=collector, eos_token_id=None)
    assert list(map(int, collector.text.split())) == output[0, ids.shape[1] :].tolist()


def gradients(model, ids) -> dict[str, Tensor]:
    model.train()(ids, labels=ids).loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.composition_parameters().items()}
    model.zero_grad()
    return found


@pytest.mark.parametrize("bases", ["llama", "gpt2"])
@pytest.mark.parametrize("settings", [None, {"use_reentrant": True}], ids=["default", "reentrant"])
def test_gradient_checkpointing_changes_no_gradient(ids, bases, settings):
    model = composed(norm=True, rotary=True) if bases == "llama" else composed(gpt2(1), gpt2(2))
    plain = gradients(model, ids)
    checkpointing(model, True, settings)
    assert model.gradient_checkpointing
    runs = []
    for index, layer in enumerate(decoder_layers(model.anchor)):
        attention = layer.self_attn if bases == "llama" else layer.attn
        attention.register_forward_hook(lambda *_, index=index: runs.append(index))
    torch.testing.assert_close(gradients(model, ids), plain)
    # The layer of the first bridge needs no gradient; the later ones run once more in the backward pass.
    assert sorted(runs) == [0, 1, 1, 2, 2]
    checkpointing(model, False)
    runs.clear()
    torch.testing.assert_close(gradients(model, ids), plain)
    assert runs == [0, 1, 2]


def test_checkpointing_leaves_generation_and_copies_alone(ids):
    model = composed()
    expected = model.generate(ids, max_new_tokens=5, do_sample=False)
    checkpointing(model, True)
    model.train()(ids, labels=ids, use_cache=True).loss.backward()
    assert not any("forward" in layer.__dict__ for layer in decoder_layers(model.anchor))
    assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False), expected)
    assert torch.equal(copy.deepcopy(model).eval().generate(ids, max_new_tokens=5, do_sample=False), expected)


@pytest.mark.slow
def test_compiled_equals_eager(model, ids):
    """Without the code generator, which takes minutes to start on a CPU: what is tested is that the graph is right."""
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), atol=2e-5, rtol=1e-4)
    model.train()
    loss = compiled(ids, labels=ids).loss
    torch.testing.assert_close(loss, model(ids, labels=ids).loss)
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.composition_parameters().values())


def test_checkpointing_does_not_forget_what_a_cache_holds(ids):
    model = composed().train()
    cache = model(ids[:, :4], use_cache=True).past_key_values
    checkpointing(model, True)
    with pytest.raises(UserError, match="cannot go on from a cache"):
        model(ids[:, 4:], labels=ids[:, 4:], past_key_values=cache)


@pytest.mark.slow
def test_a_thousand_decoding_steps_leave_nothing_behind(ids):
    model, cache = composed(), None
    counts = []
    for step in range(1001):
        if step % 40 == 0:
            cache = model.new_cache()
        logits(model, ids[:, :1], past_key_values=cache)
        if step in (40, 1000):
            gc.collect()
            counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))
    assert counts[0] == counts[1]


def test_prompts_of_several_lengths_are_told_with_every_input():
    model, ids = composed(aug_reads="prompt"), example_ids()
    lengths = torch.tensor([3, 7, 5])
    expected = logits(model, ids, prompt_lengths=lengths)
    cache = model.new_cache()
    found = [logits(model, part, prompt_lengths=lengths, past_key_values=cache) for part in ids.split([8, 1], dim=1)]
    torch.testing.assert_close(torch.cat(found, dim=1), expected, atol=1e-5, rtol=0)
    cache = model.new_cache()
    logits(model, ids[:, :8], prompt_lengths=lengths, past_key_values=cache)
    with pytest.raises(UserError, match="prompt_lengths with every input"):
        logits(model, ids[:, 8:], past_key_values=cache)
    with pytest.raises(UserError, match="guidance_scale needs a cache"):
        model.generate(ids, max_new_tokens=2, guidance_scale=2.0, use_cache=False)


def test_ids_of_special_tokens_may_be_written_as_text(ids):
    model = composed()
    ended = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=7)
    for written in ("7", ["7"], [7]):
        model.generation_config.eos_token_id = written
        assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False), ended)
    model.generation_config.eos_token_id = "</s>"
    with pytest.raises(UserError, match="eos_token_id='</s>' of the generation settings has to be the token's id"):
        model.generate(ids)
