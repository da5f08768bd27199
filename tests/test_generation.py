"""Generation: completions in the order asked, whatever the batch, cut where they should be, streamed to the letter."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calmctl.errors import UserError
from calmctl.inference.generation import complete
from calmctl.inference.settings import Decoding
from calmctl.inference.text import StopStrings, TextStream
from calmctl.inference.writer import Throughput
from calmctl.modeling.bridge import Bridge
from data_builders.kv.tokenizers import build_word_tokenizer
from evals import Request
from tests.models import composed, llama

WORDS = ["substitute:", "solve:"]
TEXTS = ["solve: 1 + 2 =", "solve: 12 + 33 - 4 =", "substitute: ab + cd =", "solve: 7 =", "9"]


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer([f"k{chr(97 + i)}" for i in range(20)] + ["ab", "cd"], WORDS)


@pytest.fixture(scope="module", params=["plain", "composed"])
def model(request):
    return llama(seed=4) if request.param == "plain" else composed(norm=True, rotary=True)


def prompts(count: int = 6, **settings) -> list[Request]:
    return [Request("", text, count, **settings) for text in TEXTS]


def test_completions_do_not_depend_on_batch_size_or_order(model, tokenizer):
    alone = complete(model, tokenizer, prompts(), Decoding(batch_size=1))
    for batch_size in (2, 3, 64):
        assert complete(model, tokenizer, prompts(), Decoding(batch_size=batch_size)) == alone
    assert complete(model, tokenizer, prompts()[::-1], Decoding(batch_size=2)) == alone[::-1]
    assert any(text.strip() for text in alone)


def test_greedy_completion_is_the_argmax_of_full_forward_passes(model, tokenizer):
    ids = tokenizer("solve: 12 + 33 - 4 =", return_tensors="pt")["input_ids"]
    for _ in range(6):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
    expected = tokenizer.decode(ids[0]).split("=", 1)[1]
    found = complete(model, tokenizer, [prompts()[1]], Decoding())[0]
    if tokenizer.eos_token in expected:
        expected = expected.split(tokenizer.eos_token)[0]
    assert found.split() == expected.split()


def test_decoding_is_ours_alone_and_leaves_the_model_as_it_was(tokenizer):
    model = llama(seed=4, attention_dropout=0.5)
    expected = complete(model.eval(), tokenizer, prompts(), Decoding())
    model.generation_config.repetition_penalty = 5.0
    model.train()
    assert complete(model, tokenizer, prompts(), Decoding()) == expected
    assert model.training and model.generation_config.repetition_penalty == 5.0


def test_an_empty_prompt_is_one_clear_error(tokenizer):
    with pytest.raises(UserError, match="prompt 2 is empty"):
        complete(llama(), tokenizer, [Request("", "solve: 1 =", 3), Request("", "", 3)], Decoding())


def test_prompts_may_ask_for_different_lengths(model, tokenizer):
    mixed = [Request("", text, 2 + i) for i, text in enumerate(TEXTS)]
    expected = [complete(model, tokenizer, [prompt], Decoding())[0] for prompt in mixed]
    assert complete(model, tokenizer, mixed, Decoding(batch_size=3)) == expected


def test_a_completion_ends_before_a_stop_string(model, tokenizer):
    whole = complete(model, tokenizer, prompts(), Decoding())
    row = next(i for i, text in enumerate(whole) if len(text) > 3)
    stop = whole[row][2:4]
    throughput = Throughput()
    cut = complete(model, tokenizer, prompts(40, stop=(stop, "never")), Decoding(), throughput)
    assert throughput.tokens < 40 * len(TEXTS)
    assert cut[row] == whole[row][: whole[row].find(stop)]
    assert all(stop not in text for text in cut)


def test_sampling_is_reproducible_from_its_seed(model, tokenizer):
    hot = Decoding(temperature=3.0, seed=1)
    first, second = (complete(model, tokenizer, prompts(), hot) for _ in range(2))
    assert first == second != complete(model, tokenizer, prompts(), Decoding(temperature=3.0, seed=2))


def test_bridges_are_folded_once_for_all_batches(tokenizer, monkeypatch):
    model, folds = composed(rotary=True), []
    expected = complete(model, tokenizer, prompts(), Decoding())
    original = Bridge.folded
    monkeypatch.setattr(Bridge, "folded", lambda bridge: folds.append(bridge) or original(bridge))
    assert complete(model, tokenizer, prompts(), Decoding(batch_size=1)) == expected
    assert len(folds) == len(set(map(id, folds))) == 3


def test_throughput_counts_every_prompt(model, tokenizer):
    seen: list[int] = []
    throughput = Throughput(on_batch=lambda so_far: seen.append(so_far.done))
    complete(model, tokenizer, prompts(), Decoding(batch_size=2), throughput)
    assert seen[-1] == len(TEXTS) and seen == sorted(seen)
    assert 0 < throughput.tokens <= 6 * len(TEXTS)


def test_no_prompts_give_no_completions(model, tokenizer):
    assert complete(model, tokenizer, [], Decoding()) == []


def test_a_prompt_beyond_the_context_is_one_clear_error(tokenizer):
    with pytest.raises(UserError, match="exceed the model's context of 64"):
        complete(llama(), tokenizer, [Request("", "solve: 1 =", 100)], Decoding())


@pytest.mark.parametrize("settings", [
    {"batch_size": 0}, {"num_beams": 0}, {"temperature": -1.0}, {"num_beams": 2, "temperature": 1.0},
])  # fmt: skip
def test_decoding_out_of_range_is_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        Decoding(**settings)


def of_single_bytes() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE({byte: place for place, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def test_a_stop_string_of_several_bytes_a_character_is_found():
    tokenizer, stop = of_single_bytes(), "\N{SKULL}\N{SKULL}\N{FIRE}\N{FIRE}\N{FIRE}"
    ids = tokenizer(f"ab{stop}", return_tensors="pt")["input_ids"]
    assert ids.shape[1] == 2 + len(stop.encode())
    assert StopStrings(tokenizer, (stop,), [0], {})(ids, None).item()


@pytest.mark.parametrize("decoding", [Decoding(), Decoding(temperature=1.0, seed=3)], ids=["greedy", "sampling"])
def test_pieces_are_the_completion_and_come_one_by_one(model, tokenizer, decoding):
    pieces = []
    text = complete(model, tokenizer, [Request("", "solve: 1 + 2 =", 12)], decoding, on_text=pieces.append)[0]
    assert "".join(pieces) == text
    assert len(pieces) > 1


def test_a_character_is_passed_on_when_all_its_bytes_are_there():
    tokenizer = of_single_bytes()
    prompt, completion = "a", " 5 €!"
    ids = tokenizer(prompt + completion)["input_ids"]
    pieces = []
    stream = TextStream(tokenizer, pieces.append)
    stream.put(torch.tensor([ids[:1]]))
    for token in ids[1:]:
        stream.put(torch.tensor([token]))
    stream.end()
    assert pieces == [" ", "5", " ", "€", "!"]
