"""Two models write together: what each expects of the next byte, and their average, whatever their tokens are."""

import math

import numpy as np
import pytest
import torch

from calmctl.errors import CalmctlError, UserError
from calmctl.inference.byte_reading import END, FLOOR, MOST_HOLES, ByteReader
from calmctl.inference.decoding import NotFiniteError
from calmctl.inference.generation import complete
from calmctl.inference.mixture import Mixture, Voice
from calmctl.inference.prompt import fit
from calmctl.inference.settings import Decoding
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.tokenizers.token_bytes import ByteVocabulary, TokenBytes
from evals import Request
from tests import tokenizer_families as families
from tests.model_types import tiny_model
from tests.own_tokenizers import base, composed
from tests.scored import bits_of

PROMPTS = ["the other thing", "a", "then there is the rest of it:", "Über den "]
TEXTS = [" is thé best", " the", " three men", "Wolken 雲"]
TOKENIZERS = {
    "bytes": families.tiny_bytes, "gpt2": families.gpt2_style,
    "llama2": families.llama2_style, "gemma": families.gemma_style,
}  # fmt: skip


def voice(kind: str, tokenizer: str, seed: int = 0) -> Voice:
    made = TOKENIZERS[tokenizer]()
    model = base(kind, made, seed, **({"sliding_window": 100} if kind == "gemma2" else {}))
    model.generation_config.eos_token_id = made.eos_token_id
    return Voice(model, made, f"{kind} with {tokenizer}")


def reader(of: Voice, prompts: list[str]) -> ByteReader:
    ends = [of.tokenizer.eos_token_id] if of.tokenizer.eos_token_id is not None else []
    vocabulary = ByteVocabulary(of.tokenizer, ends, len(of.tokenizer), of.name)
    return ByteReader(of.model, vocabulary, prompt_ids(of.tokenizer, prompts), 0)


def steps(of: Voice, prompts: list[str], texts: list[str]):
    """Yield a reader and the chances of what comes next, over the bytes that all texts have."""
    going = reader(of, prompts)
    for column in zip(*(text.encode() for text in texts), strict=False):
        yield going, going.chances(), column
        going.take(list(column))


@torch.no_grad()
def next_tokens(of: Voice, ids: list[int]) -> np.ndarray:
    return of.model(input_ids=torch.tensor([ids])).logits[0, -1].float().softmax(-1).double().numpy()


VOICES = [("llama", "bytes"), ("llama", "gpt2"), ("gpt2", "llama2"), ("gemma2", "gemma"), ("neox", "gpt2")]


@pytest.mark.parametrize("kind, tokenizer", VOICES)
def test_the_first_byte_is_that_of_the_tokens_that_begin_with_it(kind, tokenizer):
    """Of tokens longer than the prompt's last one, and of those behind it."""
    of = voice(kind, tokenizer)
    table, found = TokenBytes.of(of.tokenizer, ""), reader(of, PROMPTS).chances()
    for prompt, chances in zip(PROMPTS, found, strict=True):
        ids = prompt_ids(of.tokenizer, [prompt])[0]
        begun = table[ids[-1]] if len(ids) > 1 else b""
        behind = next_tokens(of, ids)
        expected = np.zeros(257)
        if begun:
            before = next_tokens(of, ids[:-1])
            alike = [token for token in range(len(before)) if (table[token] or b"").startswith(begun)]
            ends = sum(before[token] for token in alike if table[token] == begun)
            for token in alike:
                if len(table[token]) > len(begun):
                    expected[table[token][len(begun)]] += before[token]
        else:
            ends = 1.0
        for token in range(len(behind)):
            if table[token]:
                expected[table[token][0]] += ends * behind[token]
        if of.tokenizer.eos_token_id is not None:
            expected[END] = ends * behind[of.tokenizer.eos_token_id]
        expected = (1 - FLOOR) * expected / expected.sum() + FLOOR / 257
        np.testing.assert_allclose(chances, expected, rtol=2e-4, atol=1e-9)


@pytest.mark.parametrize("kind, tokenizer", VOICES)
def test_what_is_read_on_the_way_is_what_the_tokens_alone_give(kind, tokenizer):
    """Tokens that were read for nothing leave no trace, whatever else stands in the batch."""
    of = voice(kind, tokenizer)
    table = TokenBytes.of(of.tokenizer, "")
    *_, (going, _, _) = steps(of, PROMPTS, TEXTS)
    assert going.chances().sum(-1) == pytest.approx(1)
    for row, prompt, text in zip(going._rows, PROMPTS, TEXTS, strict=True):
        ids = prompt_ids(of.tokenizer, [prompt])[0]
        known = (ids[:-1] if len(ids) > 1 else ids) + row.tokens
        written = b"".join(table[token] or b"" for token in known) + row.begun
        length = min(len(each.encode()) for each in TEXTS)
        assert written.endswith(prompt.encode() + text.encode()[:length])
        np.testing.assert_allclose(row.after[0], next_tokens(of, known)[going.vocabulary.ids], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind, tokenizer", VOICES)
def test_rows_are_what_they_are_alone(kind, tokenizer):
    of = voice(kind, tokenizer)
    together = [chances for _, chances, _ in steps(of, PROMPTS, TEXTS)]
    for place, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        alone = [chances[0] for _, chances, _ in steps(of, [prompt], [text])][: len(together)]
        np.testing.assert_allclose([each[place] for each in together], alone, rtol=1e-3, atol=1e-8)


def test_rows_that_are_left_out_change_no_others():
    of = voice("llama", "gpt2")
    expected = [chances for _, chances, _ in steps(of, PROMPTS, TEXTS)]
    going = reader(of, PROMPTS)
    for column in list(zip(*(text.encode() for text in TEXTS), strict=False))[:2]:
        going.take(list(column))
    going.keep([3, 1])
    np.testing.assert_allclose(going.chances(), expected[2][[3, 1]], rtol=1e-3, atol=1e-8)


def test_any_byte_can_follow():
    """Where no token goes on so, what has begun is cut into tokens, and the rest is what follows those."""
    of = voice("llama", "gpt2")
    table, going = TokenBytes.of(of.tokenizer, ""), reader(of, ["the"])
    given = (0xFF, 0x00, 0xE9, 0x9B, 0x20, 0xC3, 0xC3)
    for byte in given:
        assert going.chances()[0, byte] >= FLOOR / 257
        going.take([byte])
    (row,) = going._rows
    known = prompt_ids(of.tokenizer, ["the"])[0]
    known = known[: len(known) - row.num_healed] + row.tokens
    assert b"".join(table[token] or b"" for token in known) + row.begun == b"the" + bytes(given)
    np.testing.assert_allclose(row.after[0], next_tokens(of, known)[going.vocabulary.ids], rtol=1e-3, atol=1e-7)


def mixture(*voices: Voice, weight: float = 0.5) -> Mixture:
    return Mixture(voices, weight, Decoding(batch_size=3))


def written(mixed: Mixture, prompts: list[Request]) -> dict[int, str]:
    first = mixed.voices[0]
    fitted = fit(first.model, first.tokenizer, prompts)
    return {sample.prompt_index: sample.text for batch in mixed.generate(fitted) for sample in batch}


def test_with_tokens_of_a_byte_it_is_the_model_itself():
    one, other = voice("llama", "bytes", seed=1), voice("gpt2", "gpt2", seed=2)
    mixed = mixture(one, other, weight=0.0)
    bits = dict(mixed.bits_of(PROMPTS, TEXTS))
    # A byte's chance here leaves tokens out that are no text.
    expected = dict(bits_of(one.model, one.tokenizer, PROMPTS, TEXTS, 3))
    assert [bits[place] for place in range(4)] == pytest.approx([expected[place] for place in range(4)], rel=0.02)
    prompts = [Request("", text, max_new_tokens=9) for text in PROMPTS]
    alone = complete(one.model, one.tokenizer, prompts, Decoding(batch_size=4))
    assert written(mixed, prompts) == dict(enumerate(alone))


def test_a_mixture_is_the_average_of_both():
    one, other = voice("llama", "gpt2", seed=1), voice("gemma2", "gemma", seed=2)
    weight = 0.3
    first, second = (reader(each, PROMPTS).chances() for each in (one, other))
    bits = dict(mixture(one, other, weight=weight).bits_of(PROMPTS, [text[:1] for text in TEXTS]))
    for place, text in enumerate(TEXTS):
        byte = text.encode()[0]
        expected = -math.log2((1 - weight) * first[place, byte] + weight * second[place, byte])
        assert bits[place] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_a_model_mixed_with_itself_is_itself(weight):
    one = voice("llama", "gpt2", seed=1)
    alone, mixed = mixture(one, one, weight=0.0), mixture(one, one, weight=weight)
    prompts = [Request("", text, max_new_tokens=6) for text in PROMPTS]
    assert written(mixed, prompts) == written(alone, prompts)
    assert dict(mixed.bits_of(PROMPTS, TEXTS)) == pytest.approx(dict(alone.bits_of(PROMPTS, TEXTS)), rel=1e-4)


def test_a_text_ends_before_a_stop_string_or_where_it_is_long_enough():
    one, other = voice("llama", "gpt2", seed=1), voice("gpt2", "llama2", seed=2)
    free = written(mixture(one, other), [Request("", PROMPTS[0], max_new_tokens=12)])[0]
    assert len(free) > 4
    stop = free[3:5]
    assert (
        written(mixture(one, other), [Request("", PROMPTS[0], max_new_tokens=12, stop=(stop,))])[0]
        == free[: free.find(stop)]
    )
    short = written(mixture(one, other), [Request("", PROMPTS[0], max_new_tokens=2)])[0]
    assert free.startswith(short.rstrip("\N{REPLACEMENT CHARACTER}")) and len(short) < len(free)


def test_what_cannot_be_mixed_is_refused():
    one = voice("llama", "gpt2")
    with pytest.raises(UserError, match="^mix: two models write together greedily, not by beam"):
        Mixture((one, one), 0.5, Decoding(num_beams=2))
    with pytest.raises(
        UserError, match="^mix: bloom with gpt2: BloomForCausalLM cannot pass over tokens that were tried in vain"
    ):
        mixture(one, voice("bloom", "gpt2"))
    joined = composed()
    with pytest.raises(UserError, match="^mix: runs/calm is a composition or has adapters; only plain"):
        mixture(one, Voice(joined, TOKENIZERS["gpt2"](), "runs/calm"))


def test_tokens_that_were_tried_in_vain_take_no_room():
    """A cache holds a few columns more than the longest text has tokens, and what is read stays the same."""
    of = voice("gpt2", "gpt2")
    text = "Several words, and the 42 numbers that 1234 tokens would have: " * 2
    for going, _, _ in steps(of, ["the", "a rather longer prompt:"], [text, text]):
        tokens = max(int(row) for row in going._mask.sum(-1))
        assert going._mask.shape[1] <= tokens + MOST_HOLES + 2
    for row, prompt in zip(going._rows, ["the", "a rather longer prompt:"], strict=True):
        ids = prompt_ids(of.tokenizer, [prompt])[0]
        known = ids[: len(ids) - row.num_healed] + row.tokens
        np.testing.assert_allclose(row.after[0], next_tokens(of, known)[going.vocabulary.ids], rtol=1e-3, atol=1e-7)


def test_only_a_text_beyond_the_context_is_refused():
    one, narrow = voice("llama", "gpt2"), voice("gpt2", "bytes")
    prompt = "There are thirty bytes in here."
    narrow.model.config.n_positions = len(prompt_ids(narrow.tokenizer, [prompt])[0]) + len(" and 9 mo")
    (found,) = mixture(one, narrow, weight=0.9).bits_of([prompt], [" and 9 mo"])
    assert 0 < found[1] < math.inf
    with pytest.raises(UserError, match="^mix: GPT2LMHeadModel reads 4[0-9] tokens at most, and a text has more"):
        list(mixture(one, narrow, weight=0.9).bits_of([prompt], [" and 10 more"]))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_so_many_whole_tokens_are_written_as_were_asked_for(limit):
    one, other = voice("llama", "gpt2", seed=1), voice("gpt2", "llama2", seed=2)
    mixed = mixture(one, other, weight=0.0)
    fitted = fit(one.model, one.tokenizer, [Request("", prompt, max_new_tokens=limit) for prompt in PROMPTS])
    samples = {each.prompt_index: each for batch in mixed.generate(fitted) for each in batch}
    longer = written(mixed, [Request("", prompt, max_new_tokens=limit + 3) for prompt in PROMPTS])
    for place, sample in samples.items():
        torn = "\N{REPLACEMENT CHARACTER}"
        assert longer[place].startswith(sample.text.rstrip(torn)) and sample.text
        assert sample.num_tokens == limit


def test_numbers_that_are_none_are_told_with_their_prompt():
    one, other = voice("llama", "gpt2"), voice("gpt2", "gpt2", seed=3)
    mixed = mixture(one, other)
    for parameter in other.model.transformer.ln_f.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(NotFiniteError, match="prompt 1: the logits of GPT2LMHeadModel are not finite"):
        written(mixed, [Request("", PROMPTS[0], max_new_tokens=3)])
    with pytest.raises(NotFiniteError) as error:
        list(mixed.bits_of(PROMPTS, TEXTS))
    assert error.value.row in range(4)


def test_batches_are_halved_when_memory_is_short_and_none_is_one_clear_error(monkeypatch):
    one, other = voice("llama", "gpt2"), voice("gpt2", "llama2")
    expected = dict(mixture(one, other).bits_of(PROMPTS, TEXTS))
    mixed, forward, most = mixture(one, other), other.model.forward, [1]

    def short(*args, **kwargs):
        if len(kwargs["input_ids"]) > most[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(*args, **kwargs)

    monkeypatch.setattr(other.model, "forward", short)
    assert dict(mixed.bits_of(PROMPTS, TEXTS)) == pytest.approx(expected, rel=1e-4)
    assert mixed.batch_size == 1
    most[0] = 0
    with pytest.raises(CalmctlError, match="^out of memory with a single text of [0-9]+ bytes$"):
        list(mixed.bits_of(PROMPTS, TEXTS))
    with pytest.raises(CalmctlError, match="^out of memory with a single prompt of [0-9]+ tokens$"):
        written(mixed, [Request("", "the", 2)])


def test_models_with_states_or_chunks_are_not_mixed():
    one = voice("llama", "gpt2")
    for model_type, name in (("qwen3_next", "Qwen3Next"), ("roformer", "RoFormer")):
        model = tiny_model(model_type)
        model.resize_token_embeddings(len(one.tokenizer), mean_resizing=False)
        with pytest.raises(UserError, match=f"^mix: states: {name}ForCausalLM cannot pass over tokens that were tried"):
            mixture(one, Voice(model, one.tokenizer, "states"))
