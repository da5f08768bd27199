"""The engine and the tools of others with augs that have tokenizers of their own: as with any composed model."""

import math
from dataclasses import replace

import pytest
import torch

from calmctl.errors import UserError
from calmctl.inference import continuation
from calmctl.inference.generation import Engine, complete
from calmctl.inference.likelihood import encoded_pairs
from calmctl.inference.prompt import fit
from calmctl.inference.reading import reading_of
from calmctl.inference.settings import Decoding
from calmctl.modeling.composition import compose
from calmctl.modeling.context import aug_contexts, context_length
from evals import Request
from tests.models import logits, opened
from tests.own_tokenizers import PAIRS, base, composed
from tests.scored import bits_of

SHOTS = ("The quick fox. ", "В начале был текст. ", "x = [1,  2]\n")
TEXTS = ("She said", "12 dogs, 345", "你好，", "def total(")


def short_sighted(length: int = 24):
    """Return a model whose aug has few positions, and the anchor's tokenizer."""
    tokenizers = [make() for make in PAIRS["gpt2-llama3"]]
    aug = base("gpt2", tokenizers[1], 2, n_positions=length)
    return opened(compose(base("llama", tokenizers[0], 1), aug, every=1, tokenizers=tokenizers)), tokenizers[0]


def test_prompts_lose_shots_for_an_aug_that_reads_less_than_its_anchor():
    model, tokenizer = short_sighted()
    (aug,) = aug_contexts(model)
    assert context_length(model) == 512 and aug.length == 24
    asked = [Request("", text, 4, shots=SHOTS * 4) for text in TEXTS]
    fitted = fit(model, tokenizer, asked)
    assert fitted.num_shortened == len(asked)
    for prompt, ids in zip(fitted.prompts, fitted.ids, strict=True):
        assert aug.longest(ids) + 4 <= 24
        longer = Request("", prompt.prompt, 4, shots=(SHOTS * 4)[-len(prompt.shots) - 1 :])
        assert aug.longest(tokenizer(longer.text)["input_ids"]) + 4 > 24
    assert len(complete(model, tokenizer, asked, Decoding())) == len(asked)
    with pytest.raises(UserError, match="4 of 4 prompts exceed the context of an aug, in its own tokens"):
        fit(model, tokenizer, asked, "fail")
    with pytest.raises(UserError, match="1 of 2 prompts exceed, with their references, the 24 tokens of its own"):
        encoded_pairs(model, tokenizer, ["", "The"], ["Привет, мир! " * 6, " fox"])


MODELS = {
    "own": lambda: composed(),
    "windows": lambda: composed("gpt2-llama3", ("llama", "gemma2")),
    "prompts only": lambda: composed(aug_reads="prompt"),
    "chunks": lambda: composed("gpt2-llama3", ("llama", "gpt2"), segmentation="chunks"),
}
HOT = Decoding(temperature=1.5, top_p=0.9, seed=3)


@pytest.fixture(scope="module", params=[
    pytest.param(name, marks=[] if name == "own" else pytest.mark.slow) for name in MODELS
])  # fmt: skip
def model(request):
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def tokenizer():
    return PAIRS["gpt2-llama3"][0]()


def prompts(**settings) -> list[Request]:
    return [Request("", text, 10, shots=SHOTS, **settings) for text in TEXTS]


def written(model, tokenizer, asked, decoding: Decoding, share: bool) -> dict[tuple[int, int], str]:
    engine = Engine(model, tokenizer, decoding, share_prefixes=share)
    samples = [sample for batch in engine.generate(fit(model, tokenizer, asked)) for sample in batch]
    return {(sample.prompt_index, sample.index): sample.text for sample in samples}


def test_a_completion_does_not_depend_on_batches_prefixes_and_stretches(model, tokenizer, monkeypatch):
    assert str(reading_of(model, tokenizer)) == "padded batches, continued caches"
    for decoding, most in ((Decoding(), 1), (HOT, 2), (Decoding(num_beams=3), 1)):
        asked = prompts(num_samples=most, stop=("e",))
        alone = written(model, tokenizer, asked, replace(decoding, batch_size=1), share=False)
        assert any(alone.values())
        for size, share, stretch in ((4, True, 2), (2, True, 1), (3, False, 32)):
            monkeypatch.setattr(continuation, "STRETCH", stretch)
            assert written(model, tokenizer, asked, replace(decoding, batch_size=size), share) == alone


def test_text_is_streamed_and_ends_with_stop_strings(model, tokenizer):
    pieces: list[str] = []
    (whole,) = complete(model, tokenizer, prompts()[:1], Decoding(), on_text=pieces.append)
    assert "".join(pieces) == whole
    ids = tokenizer(prompts()[0].text, return_tensors="pt")["input_ids"]
    letters = {token_id for token, token_id in tokenizer.get_vocab().items() if token.isascii() and token.isalpha()}
    others = [token_id for token_id in range(len(tokenizer)) if token_id not in letters]
    settings = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0, "suppress_tokens": others}
    new = model.generate(ids, **settings)[0, ids.shape[1] :]
    stop = tokenizer.decode(new[2])
    stopped = model.generate(ids, stop_strings=[stop], tokenizer=tokenizer, **settings)[0, ids.shape[1] :]
    assert len(stopped) <= 3 < len(new) and torch.equal(stopped, new[: len(stopped)])


def test_bits_of_texts_are_those_of_each_alone(model, tokenizer):
    texts = ("lazy dog", "мир", "", "1\r\n\t👩\u200d👧", "x" * 40)
    asked = [prompt.text for prompt in (*prompts(), Request("", "The", 1))]
    found = dict(bits_of(model, tokenizer, asked, texts, 3))
    for place, (prompt, text) in enumerate(zip(asked, texts, strict=True)):
        start, ids = len(tokenizer(prompt)["input_ids"]), tokenizer(prompt + text, return_tensors="pt")["input_ids"]
        lengths = {"prompt_lengths": torch.tensor([start])} if model.config.aug_reads == "prompt" else {}
        made = logits(model, ids, use_cache=False, **lengths)[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])
        if tokenizer(prompt)["input_ids"] == ids[0, :start].tolist():
            assert found[place] == pytest.approx(-made[start - 1 :].sum().item() / math.log(2), rel=1e-4, abs=1e-4)
