"""Virtual tokens, and equality with peft of every method that peft has: prompt tuning, p-tuning, prefixes, LoRA."""

import peft
import pytest
import torch
from torch import nn
from transformers import DynamicCache

from calmctl import AdaptedModelForCausalLM, adapt
from calmctl.baselines.methods import ADAPTERS
from calmctl.baselines.options import AdapterOptions
from calmctl.errors import UserError
from calmctl.inference.growing_cache import SharedPrefix, most_places
from calmctl.modeling.calling import CACHE
from calmctl.modeling.context import context_length
from tests.families import FAMILIES
from tests.models import example_ids, gpt2, llama, logits, padded, with_random_adapters

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:Position ids")
PROMPTS = ["prompt", "p_tuning"]
TOKENS = 5
PEFT = {
    "prompt": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=TOKENS),
    "p_tuning": lambda: peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=TOKENS, encoder_hidden_size=128
    ),
    "prefix": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=TOKENS),
    "lora": lambda: peft.LoraConfig(
        task_type="CAUSAL_LM", r=TOKENS, lora_alpha=2 * TOKENS, target_modules=["q_proj", "up_proj"]
    ),
}
CHOICES = {"prefix": AdapterOptions(init="published"), "lora": AdapterOptions(targets=("q_proj", "up_proj"))}


def random_weights(model: nn.Module, std: float = 0.3) -> list[nn.Parameter]:
    """Give the trainable parameters of a model random values, by name, and return them."""
    torch.manual_seed(4)
    found = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in found:
        nn.init.normal_(parameter, std=std)
    return found


def copied(ours: AdaptedModelForCausalLM, theirs: nn.Module, method: str) -> None:
    """Give our adapters the weights of peft's."""
    values = random_weights(theirs)
    if method == "prefix":  # peft keeps all layers in one tensor: keys and values of each in turn
        (table,) = values
        parts = table.detach().chunk(len(ours.config.sizes), -1)
        for parameter, part in zip(ours.trained_parameters().values(), parts, strict=True):
            parameter.data = part.clone()
        return
    for parameter, value in zip(ours.trained_parameters().values(), values, strict=True):
        assert parameter.shape == value.shape
        parameter.data = value.detach().clone()


@pytest.mark.parametrize("build", [llama, gpt2], ids=["rotary", "learned positions"])
@pytest.mark.parametrize("method", PEFT)
def test_every_method_computes_what_peft_computes(method, build):
    if build is gpt2 and method == "lora":
        pytest.skip("peft's LoRA is the one that is used; one model suffices")
    theirs = peft.get_peft_model(build(), PEFT[method]()).eval()
    ours = adapt(build(), method, size=TOKENS, options=CHOICES.get(method))
    copied(ours, theirs, method)
    ids = example_ids()
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    # peft moves every token behind the prefix; ours leaves positions as they are.
    positions = {"position_ids": torch.arange(ids.shape[1]).expand_as(ids) + TOKENS} if method == "prefix" else {}
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
    found = logits(ours, ids, attention_mask=mask, **positions)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4)
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100  # peft also asks the last virtual token for the first token of a text
    loss = theirs(input_ids=ids, attention_mask=mask, labels=labels).loss
    own = ours(ids, attention_mask=mask, labels=labels, **positions).loss
    torch.testing.assert_close(own, loss, atol=1e-5, rtol=1e-4)


def prompted(method: str = "prompt", build=llama) -> AdaptedModelForCausalLM:
    return with_random_adapters(adapt(build(), method, size=TOKENS))


@pytest.mark.parametrize("method", PROMPTS)
def test_no_logit_depends_on_a_later_token(method):
    model, ids = prompted(method), example_ids()
    changed = ids.clone()
    changed[:, 5:] = 7
    assert torch.equal(logits(model, ids)[:, :5], logits(model, changed)[:, :5])
    assert not torch.equal(logits(model, ids)[:, 5:], logits(model, changed)[:, 5:])


def test_virtual_tokens_are_nowhere_in_what_a_model_returns():
    model, ids = prompted(), example_ids()
    with torch.no_grad():
        answer = model(ids, output_hidden_states=True)
        assert answer.logits.shape[:2] == ids.shape == answer.hidden_states[-1].shape[:2]
        for keep in (1, 4, 50):
            torch.testing.assert_close(model(ids, logits_to_keep=keep).logits, answer.logits[:, -keep:])
        for chosen in (torch.tensor([0, 3]), torch.tensor([-1, 2]), torch.arange(ids.shape[1]) % 2 == 0):
            torch.testing.assert_close(model(ids, logits_to_keep=chosen).logits, answer.logits[:, chosen])


@pytest.mark.parametrize("build", [llama, gpt2], ids=["rotary", "learned positions"])
def test_caches_hold_virtual_tokens_that_nobody_counts(build):
    model, ids = prompted(build=build), example_ids()
    whole, cache = logits(model, ids), model.new_cache()
    parts = [
        logits(model, part, past_key_values=cache, use_cache=True) for part in (ids[:, :4], ids[:, 4:6], ids[:, 6:])
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)
    assert cache.get_seq_length() == ids.shape[1]
    decoder, fresh, cuts = model.get_decoder(), model.new_cache(), (ids[:, :4], ids[:, 4:6], ids[:, 6:])
    with torch.no_grad():
        states = [decoder(part, **{CACHE: fresh}).last_hidden_state for part in cuts]
        torch.testing.assert_close(model.get_output_embeddings()(torch.cat(states, 1)), whole, atol=2e-5, rtol=1e-4)
    cache.crop(-4)
    torch.testing.assert_close(logits(model, ids[:, 5:], past_key_values=cache), whole[:, 5:], atol=2e-5, rtol=1e-4)
    cache.crop(-3)
    cache.reorder_cache(torch.tensor([2, 0, 1]))
    again = logits(model, ids[[2, 0, 1], 6:], past_key_values=cache)
    torch.testing.assert_close(again, whole[[2, 0, 1], 6:], atol=2e-5, rtol=1e-4)
    with pytest.raises(UserError, match=r"crop\(-10\): the shortest row of the cache holds 9 tokens"):
        cache.crop(-10)
    with pytest.raises(UserError, match="virtual tokens need a cache of the model's own"):
        model(ids, past_key_values=DynamicCache())
    with pytest.raises(UserError, match="cache_implementation='static': this model has dynamic"):
        model.generate(ids, cache_implementation="static", max_new_tokens=2)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2}], ids=str)
def test_generation_with_a_cache_equals_generation_without(settings):
    model, (prompt, mask) = prompted(), padded(example_ids(), 3, 0)
    if "prompt_lookup_num_tokens" in settings:
        prompt, mask = prompt[:1, 3:], mask[:1, 3:]
    common = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    expected = model.generate(prompt, use_cache=False, **common, **settings | {"prompt_lookup_num_tokens": None})
    assert torch.equal(model.generate(prompt, **common, **settings), expected)


@pytest.mark.parametrize("build", [llama, gpt2, FAMILIES["Mistral"]], ids=["rotary", "learned positions", "window"])
def test_padding_may_fill_the_first_tokens_that_are_read(build):
    """As in a prefill in chunks: where virtual tokens stand is decided once, also in a row that begins with padding."""
    model, (wide, mask) = prompted(build=build), padded(example_ids(), 4, 0)
    mask[1, :6] = 0
    cache, parts = model.new_cache(), []
    for start, end in ((0, 4), (4, 8), (8, 13)):
        chunk = {"attention_mask": mask[:, :end], "past_key_values": cache, "use_cache": True}
        parts.append(logits(model, wide[:, start:end], **chunk))
    found, expected = torch.cat(parts, 1), logits(model, wide, attention_mask=mask)
    if build is not FAMILIES["Mistral"]:  # in a window, padding that was read first comes between
        torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4)
        order = torch.tensor([1, 0, 2])
        cache.reorder_cache(order)
        cache.crop(-3)
        again = logits(model, wide[order, 10:], attention_mask=mask[order], past_key_values=cache)
        torch.testing.assert_close(again, expected[order, 10:], atol=2e-5, rtol=1e-4)
    at_once = model.new_cache()
    logits(model, wide, attention_mask=mask, past_key_values=at_once, use_cache=True)
    with pytest.raises(UserError, match=r"crop\(-8\): the shortest row of the cache holds 7 tokens"):
        at_once.crop(-8)


def test_prompts_can_share_the_cache_of_what_they_begin_with():
    model, ids = prompted(), example_ids()
    assert most_places(model)
    cache = SharedPrefix(model, ids[0, :4].tolist()).for_rows(3)
    together = torch.cat([ids[:1, :4].expand(3, -1), ids[:, 4:]], 1)
    rest = logits(model, together[:, 4:], past_key_values=cache)
    torch.testing.assert_close(rest, logits(model, together)[:, 4:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("method", PROMPTS)
def test_a_checkpoint_holds_them_and_the_context_is_shorter(method, tmp_path):
    llama().save_pretrained(tmp_path / "anchor")
    model = with_random_adapters(adapt(str(tmp_path / "anchor"), method, size=TOKENS))
    model.save_pretrained(tmp_path / "adapted")
    loaded = AdaptedModelForCausalLM.from_pretrained(tmp_path / "adapted")
    assert torch.equal(logits(loaded, example_ids()), logits(model, example_ids()))
    assert context_length(loaded) == 64 - TOKENS
    with pytest.raises(UserError, match="cannot be merged"):
        model.merged()


@pytest.mark.parametrize("wanted, message", [
    ({"size": 64}, "64 virtual tokens leave no room in a context of 64"),
    ({"parameters": 31_000}, "968 virtual tokens|virtual tokens leave no room"),
    ({"size": 4, "options": AdapterOptions(where="attention")}, "where=attention: Prompt tuning cannot go there"),
])  # fmt: skip
def test_what_cannot_be_is_one_line(wanted, message):
    with pytest.raises(UserError, match=message):
        adapt(llama(), "prompt", **wanted)


def test_prompt_tuning_starts_from_tokens_of_the_vocabulary_or_as_peft_does():
    words = llama().get_input_embeddings().weight
    model = adapt(llama(), "prompt", size=TOKENS)
    (found,) = model.trained_parameters().values()
    assert all(any(torch.equal(row, word) for word in words) for row in found)
    (published,) = (
        adapt(llama(), "prompt", size=40, options=AdapterOptions(init="published")).trained_parameters().values()
    )
    assert 0.9 < float(published.detach().std()) < 1.1


def test_the_methods_here_are_all_that_have_virtual_tokens_in_the_text():
    assert set(PROMPTS) == {name for name, each in ADAPTERS.items() if each.is_prompt}
