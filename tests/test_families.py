"""What must hold of a composed model, for every family as anchor, as aug, and beside its neighbour in the table."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma4Config

from calmctl.errors import UserError
from calmctl.modeling.bases.fingerprint import weights_sha256
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.layers import decoder_layers
from tests.families import FAMILIES, WINDOW
from tests.models import VOCABULARY, checkpointing, composed, llama, logits, padded

NAMES = list(FAMILIES)
PAIRS = [
    *((name, "Llama") for name in NAMES),
    *(("Llama", name) for name in NAMES[1:]),
    *(
        pytest.param(pair, marks=pytest.mark.slow, id="+".join(pair))
        for pair in zip(NAMES[1:], NAMES[2:] + NAMES[:1], strict=True)
    ),
]
LENGTH = 11
LEFT, RIGHT = 3, 2
GENERATIONS = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 2},
    "sampling": {"do_sample": True, "top_k": 5},
}


@cache
def base(name: str, role: str):
    return FAMILIES[name](seed=1 if role == "anchor" else 2)


def compose_pair(anchor, aug, trained: bool = True) -> ComposedModelForCausalLM:
    """Connect first layers, and the aug's last but one (so that its last is never run) to the anchor's last."""
    depth, top = len(decoder_layers(aug)), len(decoder_layers(anchor)) - 1
    return composed(anchor, aug, trained, connections=[[0, 0], [depth - 2, top]])


@cache
def built(pair: tuple[str, str]) -> ComposedModelForCausalLM:
    return compose_pair(base(pair[0], "anchor"), base(pair[1], "aug"))


@pytest.fixture(params=PAIRS, ids="+".join, scope="module")
def pair(request) -> tuple[str, str]:
    return request.param


@pytest.fixture
def model(pair) -> ComposedModelForCausalLM:
    return built(pair)


@pytest.fixture(scope="module")
def saved_base(tmp_path_factory):
    """Return what saves a base (once) and tells its folder."""
    root = tmp_path_factory.mktemp("bases")

    @cache
    def save(name: str, role: str) -> Path:
        base(name, role).save_pretrained(root / role / name)
        return root / role / name

    return save


@pytest.fixture(scope="module")
def ids() -> Tensor:
    assert LENGTH > 2 * WINDOW
    return torch.randint(2, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(0))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-4)


def test_untrained_composition_equals_its_anchor_exactly(pair, ids):
    anchor, aug = base(pair[0], "anchor"), base(pair[1], "aug")
    assert torch.equal(logits(compose_pair(anchor, aug, trained=False), ids), logits(anchor, ids))


def test_trained_bridges_matter(model, ids):
    assert (logits(model, ids) - logits(model.anchor, ids)).abs().max() > 0.1


def test_no_logit_depends_on_a_later_token(pair, ids):
    model = built(pair)
    if "Mixtral" in pair:
        # By default an expert multiplies all of its tokens at once, and how many rows a product has can change how it
        # rounds (by 4e-7, in Mixtral alone as well). One product a token makes the comparison exact.
        how = {name: {"experts_implementation": "batched_mm"} if name == "Mixtral" else {} for name in pair}
        model = compose_pair(*(FAMILIES[name](seed, **how[name]) for seed, name in enumerate(pair)))
    before = logits(model, ids)
    for seen in (1, WINDOW + 2, LENGTH - 1):
        changed = ids.clone()
        changed[:, seen:] = (changed[:, seen:] + 7) % VOCABULARY
        after = logits(model, changed)
        assert torch.equal(before[:, :seen], after[:, :seen])
        assert (before[:, seen:] - after[:, seen:]).abs().max() > 0.1


def test_padding_changes_nothing(model, ids):
    expected = logits(model, ids)
    for left, right in ((LEFT, 0), (0, RIGHT), (LEFT, RIGHT)):
        wide, mask = padded(ids, left, right)
        found = logits(model, wide, attention_mask=mask)
        close(found[:, left : left + LENGTH], expected)
        assert torch.isfinite(found).all()


def test_cached_logits_equal_uncached_logits(model, ids):
    wide, mask = padded(ids, LEFT, 0)
    mask[1, :LEFT] = 1
    expected, cached, pieces, start = logits(model, wide, attention_mask=mask), model.new_cache(), [], 0
    for length in (LEFT + 1, 1, 1, 1, 5, 1, 1):
        end = start + length
        pieces.append(
            logits(model, wide[:, start:end], attention_mask=mask[:, :end], past_key_values=cached, use_cache=True)
        )
        start = end
    assert start == wide.shape[1]
    close(torch.cat(pieces, 1)[mask.bool()], expected[mask.bool()])


def test_cached_generation_equals_uncached_generation(model, ids):
    wide, mask = padded(ids[:, : WINDOW - 1], LEFT, 0)
    mask[1, :LEFT] = 1
    for settings in GENERATIONS.values():
        outputs = []
        for use_cache in (True, False):
            torch.manual_seed(5)
            outputs.append(
                model.generate(
                    wide,
                    attention_mask=mask,
                    max_new_tokens=WINDOW + 2,
                    use_cache=use_cache,
                    eos_token_id=None,
                    pad_token_id=0,
                    **settings,
                )  # fmt: skip
            )
        assert torch.equal(*outputs)


def test_a_cropped_cache_continues_as_if_the_tokens_had_never_been_there(model, ids):
    cached = model.new_cache()
    cached.activate_past_recording()
    logits(model, ids, past_key_values=cached, use_cache=True)
    cached.crop(-4)
    close(logits(model, ids[:, -4:], past_key_values=cached, use_cache=True), logits(model, ids)[:, -4:])


@pytest.mark.parametrize("pair", [("Llama", "Mistral"), ("Gemma 3", "Llama")], ids="+".join)
def test_a_full_window_that_was_not_recorded_is_not_cropped_by_halves(pair, ids):
    model = built(pair)
    cached = model.new_cache()
    logits(model, ids[:, :-1], past_key_values=cached, use_cache=True)
    with pytest.raises(UserError, match=f"window of {WINDOW} has dropped"):
        cached.crop(-4)
    close(logits(model, ids[:, -1:], past_key_values=cached, use_cache=True), logits(model, ids)[:, -1:])


def test_save_and_load_keep_every_logit(pair, ids, tmp_path, saved_base):
    folders = [saved_base(name, role) for name, role in zip(pair, ("anchor", "aug"), strict=True)]
    model = compose_pair(*(AutoModelForCausalLM.from_pretrained(folder) for folder in folders))
    model.save_pretrained(tmp_path)
    loaded = ComposedModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded, ids), logits(built(pair), ids))
    size = sum(p.numel() * p.element_size() for p in model.stored_tensors().values())
    assert (tmp_path / "model.safetensors").stat().st_size < 1.2 * size


def test_training_touches_the_bridges_only(pair, ids):
    model = compose_pair(base(pair[0], "anchor"), base(pair[1], "aug"))
    bases = (model.anchor, *model.augs)
    before = [weights_sha256(base.state_dict()) for base in bases]
    labels = ids.clone()
    labels[:, :3], labels[0, :6] = -100, -100
    expected = model(ids, labels=labels).loss
    loss = model.train()(ids, labels=labels).loss
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(model.composition_parameters())
    assert all(p.grad.abs().max() > 0 for p in model.composition_parameters().values())
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert model.eval()(ids, labels=labels).loss < expected
    assert [weights_sha256(base.state_dict()) for base in bases] == before


def test_gradient_checkpointing_changes_no_gradient(pair, ids):
    model, gradients = compose_pair(base(pair[0], "anchor"), base(pair[1], "aug")).train(), []
    for enabled in (False, True):
        checkpointing(model, enabled)
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in model.composition_parameters().values()])
    torch.testing.assert_close(*gradients)


def test_bases_in_bfloat16_give_finite_logits_and_generate(pair, ids):
    anchor, aug = (FAMILIES[name](seed).bfloat16() for seed, name in enumerate(pair))
    model = compose_pair(anchor, aug)
    assert torch.isfinite(logits(model, ids)).all()
    assert model.generate(ids, max_new_tokens=2, do_sample=False, eos_token_id=None).shape == (2, LENGTH + 2)


@pytest.mark.parametrize("name", ["Gemma 3", "Gemma 4"])
def test_a_multimodal_model_is_a_base_for_text(name, ids):
    torch.manual_seed(1)
    text = FAMILIES[name]().config.to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    if name == "Gemma 3":
        vision |= {"image_size": 16, "patch_size": 8}
        config = Gemma3Config(text_config=text, vision_config=vision, image_token_index=VOCABULARY - 1)
    else:
        vision |= {"num_key_value_heads": 2, "head_dim": 8}
        config = Gemma4Config(text_config=text, vision_config=vision, image_token_id=VOCABULARY - 1)
    anchor = AutoModelForCausalLM.from_config(config).eval()
    model, labels = compose_pair(anchor, llama(seed=2)), ids.clone()
    assert torch.equal(logits(compose_pair(anchor, llama(seed=2), trained=False), ids), logits(anchor, ids))
    labels[:, :3] = -100
    expected = model(ids, labels=labels).loss
    loss = model.train()(ids, labels=labels).loss
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.composition_parameters().values())
    settings = {"max_new_tokens": WINDOW + 2, "do_sample": False, "eos_token_id": None}
    model.eval()
    assert torch.equal(model.generate(ids, **settings), model.generate(ids, use_cache=False, **settings))


def test_the_documentation_lists_the_families_that_are_tested():
    page = (Path(__file__).parents[1] / "docs" / "composition.md").read_text()
    table = page.split("## Verified families", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:] == NAMES
