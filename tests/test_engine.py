"""The generation engine: what a completion does not depend on, and what happens when memory or context is short."""

import logging
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from calmctl.errors import CalmctlError, UserError
from calmctl.inference import continuation
from calmctl.inference.generation import Engine, complete
from calmctl.inference.growing_cache import most_places
from calmctl.inference.prompt import fit
from calmctl.inference.reading import reading_of
from calmctl.inference.settings import Decoding
from calmctl.inference.text import completion_of
from calmctl.inference.writer import Sample, Throughput
from calmctl.modeling.composed import ComposedModelForCausalLM
from data_builders.kv.tokenizers import build_word_tokenizer
from evals import Request
from tests.families import FAMILIES
from tests.models import composed, gpt2, llama

SHOTS = ("solve: 1 + 2 = 3 ", "solve: 12 - 4 = 8 ", "substitute: ab = 7 ")
TEXTS = ["solve: 1 + 2 =", "solve: 12 + 33 - 4 =", "substitute: ab + cd =", "solve: 7 =", "9"]
MODELS = {
    "llama": lambda: llama(seed=4),
    "gpt2": lambda: gpt2(seed=4),
    "composed": lambda: composed(norm=True, rotary=True),
    "two-augs": lambda: composed(aug=[llama(seed=2, width=16, heads=2, kv_heads=1), llama(seed=5)]),
    "encoder": lambda: composed(aug_reads="prompt", share=3.0),
}
HOT = Decoding(temperature=2.0, top_p=0.9, seed=3)


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer([f"k{chr(97 + i)}" for i in range(20)] + ["ab", "cd"], ["substitute:", "solve:"])


@pytest.fixture(scope="module", params=list(MODELS))
def model(request):
    return MODELS[request.param]()


def prompts(**settings) -> list[Request]:
    return [Request("", text, 6, shots=SHOTS, **settings) for text in TEXTS]


def samples_of(model, tokenizer, asked, decoding, share: bool | None = None, **settings) -> list[Sample]:
    batches = Engine(model, tokenizer, decoding, share_prefixes=share).generate(
        fit(model, tokenizer, asked), **settings
    )
    samples = [sample for batch in batches for sample in batch]
    assert len({(sample.prompt_index, sample.index) for sample in samples}) == len(samples)
    return sorted(samples, key=lambda sample: (sample.prompt_index, sample.index))


def generate(*given, **settings) -> dict[tuple[int, int], str]:
    return {(sample.prompt_index, sample.index): sample.text for sample in samples_of(*given, **settings)}


# Shared prefixes.


@pytest.mark.parametrize("decoding", [
    Decoding(), Decoding(batch_size=2), Decoding(batch_size=1), Decoding(batch_size=3, num_beams=3), HOT,
], ids=["greedy", "two", "alone", "beams", "sampling"])  # fmt: skip
def test_a_shared_prefix_changes_no_token(model, tokenizer, decoding):
    assert most_places(model)
    expected = generate(model, tokenizer, prompts(), decoding, share=False)
    assert generate(model, tokenizer, prompts(), decoding, share=True) == expected
    assert any(text.strip() for text in expected.values())


def test_beams_end_with_stop_strings(model, tokenizer):
    asked = [Request("", text, 24, shots=SHOTS, stop=("k",)) for text in TEXTS]
    together, alone = (
        samples_of(model, tokenizer, asked, Decoding(batch_size=size, num_beams=3)) for size in (len(TEXTS), 1)
    )
    assert together == alone and not any("k" in sample.text for sample in together)
    if isinstance(model, ComposedModelForCausalLM):  # which soon writes a key, `k` and a letter
        assert all(sample.num_tokens < 24 for sample in together)


def test_a_shared_prefix_is_read_once(tokenizer):
    model, read = llama(seed=4), []
    reading_of(model, tokenizer)
    model.register_forward_pre_hook(lambda _, __, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True)
    generate(model, tokenizer, prompts(), Decoding(batch_size=2), share=True)
    whole = fit(model, tokenizer, prompts()).ids
    shared = len(tokenizer("".join(SHOTS))["input_ids"])
    assert [shape for shape in read if shape[1] > 1] == [
        (1, shared), *[(2, length - shared) for length in sorted(map(len, whole), reverse=True)[:4:2]]
    ]  # fmt: skip


def test_prefixes_are_shared_between_prompts_of_the_same_shots_only(model, tokenizer):
    other = [Request("", text, 6, shots=SHOTS[::-1]) for text in TEXTS]
    mixed = [prompt for pair in zip(prompts(), other, strict=True) for prompt in pair]
    expected = generate(model, tokenizer, mixed, Decoding(batch_size=1), share=False)
    for batch_size in (1, 3, 64):
        assert generate(model, tokenizer, mixed, Decoding(batch_size=batch_size), share=True) == expected


def test_tokens_that_straddle_shots_and_question_are_not_shared():
    """`12 ` + `3` may be tokens of their own or not: what counts is what the whole texts have in common."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: place for place, character in enumerate("_$abcd")} | {"bc": 6}
    straddling = Tokenizer(models.BPE(vocabulary, [("b", "c")]))
    straddling.pre_tokenizer, straddling.decoder = pre_tokenizers.Split("|", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=straddling, pad_token="_", eos_token="$")
    asked = [Request("", text, 5, shots=("aab", "aab")) for text in ("ca", "da", "cd")]
    model = llama(seed=4)
    ids = fit(model, tokenizer, asked).ids
    assert ids[0][5] == 6 and ids[1][5] != 6
    assert generate(model, tokenizer, asked, HOT, share=True) == generate(model, tokenizer, asked, HOT, share=False)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_families_share_exactly_or_not_at_all(name, tokenizer):
    model = FAMILIES[name]()
    expected = generate(model, tokenizer, prompts(), Decoding(batch_size=3), share=False)
    assert generate(model, tokenizer, prompts(), Decoding(batch_size=3), share=True) == expected


# Samples.


def test_samples_do_not_depend_on_batches_order_or_what_was_done_before(model, tokenizer):
    asked = prompts(num_samples=3)
    expected = generate(model, tokenizer, asked, HOT)
    assert len(expected) == 3 * len(asked) and len({expected[0, index] for index in range(3)}) > 1
    for batch_size in (1, 4, 7):
        decoding = Decoding(temperature=2.0, top_p=0.9, seed=3, batch_size=batch_size)
        assert generate(model, tokenizer, asked, decoding) == expected
    backwards = generate(model, tokenizer, asked[::-1], HOT)
    assert {(len(asked) - 1 - place, index): text for (place, index), text in backwards.items()} == expected
    done = {(0, 0), (1, 2), (3, 1), (4, 0)}
    rest = generate(model, tokenizer, asked, HOT, done=done)
    assert rest == {row: text for row, text in expected.items() if row not in done}


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_samples_follow_the_distribution_of_the_model(tokenizer, top_p):
    model, count = llama(seed=4), 3000
    decoding = Decoding(temperature=0.7, top_p=top_p, batch_size=500)
    drawn = Counter(complete(model, tokenizer, [Request("", TEXTS[0], 1, num_samples=count)], decoding))
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        chances, tokens = (model(ids).logits[0, -1] / 0.7).softmax(-1).sort(descending=True)
    kept = int((chances.cumsum(0) - chances < top_p).sum())
    expected: Counter[str] = Counter()
    for chance, token in zip(chances[:kept] / chances[:kept].sum(), tokens[:kept].tolist(), strict=True):
        expected[completion_of(tokenizer, ids[0].tolist(), [token])] += float(chance)
    assert set(drawn) <= set(expected)
    for text, chance in expected.items():
        assert abs(drawn[text] / count - chance) < 4.5 * (chance * (1 - chance) / count) ** 0.5 + 1e-9, text


def test_several_samples_without_chance_are_refused(tokenizer):
    with pytest.raises(UserError, match=r"3 samples .* greedy .* decoding.temperature above 0"):
        complete(llama(), tokenizer, prompts(num_samples=3), Decoding())


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(batch_size=2), HOT], ids=["greedy", "two", "sampling"])
def test_rows_that_end_are_left_out_and_change_nothing_for_the_others(model, tokenizer, decoding, monkeypatch):
    asked = [Request("", text, 30, ("1", "k"), SHOTS, 2 if decoding.samples else 1) for text in TEXTS]
    expected = generate(model, tokenizer, asked, decoding)
    monkeypatch.setattr(continuation, "STRETCH", 2)
    sizes = []
    model.register_forward_pre_hook(lambda _, __, given: sizes.append(len(given["input_ids"])), with_kwargs=True)
    assert generate(model, tokenizer, asked, decoding) == expected
    if decoding.samples and getattr(model.config, "aug_reads", "all") == "all":
        assert len(set(sizes)) > 1 and any(expected.values())


def test_free_places_are_taken_by_the_next_prompts_and_change_nothing(model, tokenizer, monkeypatch):
    asked = [Request("", text, 30, ("1", "k"), SHOTS, 4) for text in TEXTS]
    expected = generate(model, tokenizer, asked, replace(HOT, batch_size=1))
    monkeypatch.setattr(continuation, "STRETCH", 2)
    seen = []
    handle = model.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"].shape), with_kwargs=True
    )
    for share in (True, False):
        assert generate(model, tokenizer, asked, replace(HOT, batch_size=4), share) == expected
    handle.remove()
    rows = [shape[0] for shape in seen if shape[1] == 1]
    if getattr(model.config, "aug_reads", "all") == "all":
        assert any(later > earlier for earlier, later in pairwise(rows))
    assert max(rows) == 4


# Memory.


class Small(torch.nn.Module):
    """Makes a model fail above a batch size, as a device that is too small would."""

    def __init__(self, error: Exception, most: int) -> None:
        super().__init__()
        self.error, self.most, self.seen = error, most, []

    def attach(self, model):
        model.register_forward_pre_hook(self, with_kwargs=True)
        return model

    def __call__(self, _module, _args, given):
        rows = len(given["input_ids"])
        if given["input_ids"].shape[1] > 1:
            self.seen.append(rows)
        if rows > self.most:
            raise self.error


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu"])
def test_batches_are_halved_when_memory_is_short_and_no_sample_is_lost(tokenizer, error, caplog):
    asked = prompts(num_samples=3)
    expected = generate(llama(seed=4), tokenizer, asked, HOT)
    small, throughput = Small(error, most=3), Throughput()
    model = small.attach(llama(seed=4))
    with caplog.at_level(logging.WARNING):
        batches = list(Engine(model, tokenizer, HOT, throughput).generate(fit(model, tokenizer, asked)))
    samples = [sample for batch in batches for sample in batch]
    assert {(sample.prompt_index, sample.index): sample.text for sample in samples} == expected
    assert len(samples) == 15 == throughput.done and throughput.batch_size <= 3
    assert caplog.text.count("out of memory") == 1
    decoding = Decoding(batch_size=8, temperature=2.0)
    small.seen.clear()
    list(Engine(model, tokenizer, decoding).generate(fit(model, tokenizer, asked * 2)))
    assert small.seen[:3] == [8, 4, 2] and max(small.seen[3:]) == 2  # tried once


def test_a_prompt_that_no_memory_suffices_for_is_one_clear_error(tokenizer):
    model = Small(torch.OutOfMemoryError("CUDA out of memory"), most=0).attach(llama())
    with pytest.raises(CalmctlError, match="out of memory with 14 tokens of LlamaForCausalLM"):
        complete(model, tokenizer, [Request("", "9", 2)], Decoding())
    model = llama()
    reading_of(model, tokenizer)
    Small(torch.OutOfMemoryError("CUDA out of memory"), most=0).attach(model)
    with pytest.raises(CalmctlError, match="out of memory with a single prompt of 1 tokens"):
        complete(model, tokenizer, [Request("", "9", 2)], Decoding())


def test_other_errors_are_not_taken_for_a_lack_of_memory(tokenizer):
    model = llama()
    reading_of(model, tokenizer)  # with three rows at a time
    Small(RuntimeError("shapes differ"), most=2).attach(model)
    with pytest.raises(RuntimeError, match="shapes differ"):
        complete(model, tokenizer, prompts(), Decoding())


# Context.


def test_shots_are_dropped_from_the_front_and_the_question_is_kept(tokenizer):
    model = llama(seed=4)
    length = len(tokenizer(SHOTS[0])["input_ids"])
    asked = [Request("", TEXTS[1], 64 - 3 * length, shots=SHOTS[:1] * 9), Request("", "9", 4, shots=SHOTS)]
    fitted = fit(model, tokenizer, asked)
    assert fitted.num_shortened == 1
    assert fitted.prompts[1] == asked[1] and fitted.prompts[0].prompt == TEXTS[1]
    left = len(fitted.prompts[0].shots)
    assert len(fitted.ids[0]) + asked[0].max_new_tokens <= 64 < len(fitted.ids[0]) + length + asked[0].max_new_tokens
    alone = Request("", TEXTS[1], asked[0].max_new_tokens, shots=SHOTS[:1] * left)
    assert complete(model, tokenizer, asked, Decoding())[0] == complete(model, tokenizer, [alone], Decoding())[0]
    with pytest.raises(UserError, match=r"^1 of 2 prompts exceed the model's context of 64 .*on_overflow=drop_shots"):
        fit(model, tokenizer, asked, "fail")
    assert fit(model, tokenizer, asked[1:], "fail").num_shortened == 0


def test_a_question_beyond_the_context_is_one_clear_error_with_counts(tokenizer):
    asked = [Request("", "9", 3), Request("", "9", 64, shots=SHOTS), Request("", "9 " * 9, 70, shots=SHOTS)]
    with pytest.raises(
        UserError, match=r"^2 of 3 prompts .* \(the longest has \d+ and asks for 70 new ones\); no shots"
    ):
        fit(llama(), tokenizer, asked)


def test_throughput_counts_what_was_there_before_and_tells_what_is_left(tokenizer):
    seen = []
    throughput = Throughput(on_batch=lambda so_far: seen.append((so_far.done, so_far.total, so_far.eta_seconds)))
    model = llama(seed=4)
    engine = Engine(model, tokenizer, Decoding(batch_size=2), throughput)
    batches = list(engine.generate(fit(model, tokenizer, prompts()), done={(0, 0)}))
    assert all(isinstance(sample, Sample) for batch in batches for sample in batch)
    assert [done for done, _, _ in seen][-1] == 5 and throughput.generated == 4
    assert seen[0][2] > 0 == seen[-1][2] and throughput.tokens_per_second > 0
