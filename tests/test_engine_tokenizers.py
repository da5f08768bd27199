"""The engine beside plain `generate`, one prompt at a time: tokenizers and models of every habit."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.cache_utils import DynamicLayer

from calmctl.errors import UserError
from calmctl.inference.generation import Engine, complete
from calmctl.inference.prompt import fit
from calmctl.inference.settings import Decoding
from calmctl.inference.text import text_of
from calmctl.modeling.cache import ROOM, GrowingLayer
from calmctl.modeling.prompt_ids import prompt_ids
from evals import Request
from tests.models import composed, gpt2, llama
from tests.task_data import byte_tokenizer

TEXTS = ["the ", "def f(a):\n    ", "x", "the é 你 the", "a b c d e f"]
MODELS = {"llama": llama, "gpt2": gpt2, "composed": llama}


def sentencepiece(**special):
    """Return a tokenizer as Llama's: a space before every text, bytes for what it has no piece for."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [(piece, -3.0) for piece in ("\u2581", *"abcdefthx():", "\u2581the", "\u2581a", "th")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    ])  # fmt: skip
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", **special)


def bytes_without(*names):
    tokenizer = byte_tokenizer()
    for name in names:
        setattr(tokenizer, name, None)
    return tokenizer


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "bytes, no end of text": lambda: bytes_without("eos_token"),
    "bytes, padding is a word": lambda: PreTrainedTokenizerFast(
        tokenizer_object=byte_tokenizer().backend_tokenizer, eos_token="</s>", pad_token="th"
    ),
    "sentencepiece": sentencepiece,
}


def ready(model, tokenizer):
    """Return the model with embeddings for the tokenizer, and weights that make it write many different tokens."""
    model.resize_token_embeddings(len(tokenizer))
    torch.manual_seed(11)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = 0
    return model.eval()


def alone(model, tokenizer, prompt: Request) -> str:
    """Return what plain `generate` writes after one prompt, unpadded, up to the token that completes a stop string."""
    ids = tokenizer(prompt.text, return_tensors="pt")["input_ids"]
    written = model.generate(ids, max_new_tokens=prompt.max_new_tokens, do_sample=False)[0].tolist()
    if tokenizer.eos_token_id in written[ids.shape[1] :]:
        written = written[: written.index(tokenizer.eos_token_id, ids.shape[1])]
    texts = [text_of(tokenizer, written[:length]) for length in range(ids.shape[1], len(written) + 1)]
    for text, length in zip(texts, range(ids.shape[1], len(written) + 1), strict=True):
        plain = tokenizer.decode(written[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert text == plain or plain.endswith("\ufffd")  # within a character: see test_read_texts.py
    for text in (text[len(texts[0]) :] for text in texts):
        if places := [text.find(stop) for stop in prompt.stop if stop in text]:
            return text[: min(places)]
    return texts[-1][len(texts[0]) :]


@pytest.mark.parametrize(("tokenizer", "model"), [
    *((name, "llama") for name in TOKENIZERS), ("bytes", "gpt2"), ("sentencepiece", "composed"),
])  # fmt: skip
def test_completions_are_those_of_plain_generate(tokenizer, model):
    tokenizer = TOKENIZERS[tokenizer]()
    base = ready(MODELS[model](), tokenizer)
    model = composed(base, ready(llama(seed=2), tokenizer)) if model == "composed" else base
    free = [Request("", text, 14) for text in TEXTS]
    expected = [alone(model, tokenizer, prompt) for prompt in free]
    assert any(expected)
    # Pieces of what is written that begin and end anywhere in tokens, spaces included.
    stops = [text[place : place + 2] for text in expected for place in range(2, len(text) - 2, 5)]
    stop = tuple(piece for piece in dict.fromkeys(stops) if "\ufffd" not in piece and piece.isascii())[:3]
    stopping = [Request("", text, 14, stop) for text in TEXTS]
    for batch_size in (2, 64):
        assert complete(model, tokenizer, free, Decoding(batch_size=batch_size)) == expected
        cut = complete(model, tokenizer, stopping, Decoding(batch_size=batch_size))
        assert cut == [alone(model, tokenizer, prompt) for prompt in stopping]


def test_what_a_model_likes_has_no_say():
    tokenizer = byte_tokenizer()
    model = ready(llama(), tokenizer)
    asked = [Request("", text, 12) for text in TEXTS]
    expected = [alone(model, tokenizer, prompt) for prompt in asked]
    likes = {"do_sample": True, "temperature": 3.0, "num_beams": 4, "num_return_sequences": 3, "min_new_tokens": 9}
    likes |= {"forced_eos_token_id": 5, "suppress_tokens": [9], "max_length": 5, "use_cache": False, "max_time": 0.0}
    likes |= {"no_repeat_ngram_size": 2, "stop_strings": ["a"], "cache_implementation": "static"}
    for name, value in likes.items():
        setattr(model.generation_config, name, value)
    model.config.use_cache = False
    assert complete(model, tokenizer, asked, Decoding()) == expected


def test_a_padding_token_that_the_model_does_not_have_is_never_used():
    tokenizer, padded = byte_tokenizer(), byte_tokenizer()
    model = ready(llama(), tokenizer)
    padded.add_special_tokens({"pad_token": "[PAD]"})
    asked = [Request("", text, 12, ("e",)) for text in TEXTS]
    assert complete(model, padded, asked, Decoding()) == complete(model, tokenizer, asked, Decoding())
    with pytest.raises(UserError, match=r"a prompt has token id 259, and the model knows 259 tokens"):
        complete(model, padded, [Request("", "the [PAD]", 2)], Decoding())


def test_a_prompt_that_is_no_text_is_one_clear_error():
    with pytest.raises(UserError, match=r"^prompt 2 is no valid text \(surrogates not allowed at 1\)$"):
        complete(llama(), byte_tokenizer(), [Request("", "x", 2), Request("", "x\ud800", 2)], Decoding())


@pytest.mark.parametrize(
    ("template", "expected"), [("<s> $A", [1, 7]), ("$A </s>", [7]), ("<s> $A </s> </s>", [1, 7]), ("$A", [7])]
)
def test_a_prompt_is_opened_and_not_closed(template, expected):
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "<s>": 1, "</s>": 2, "a": 6, "word": 7}, "[UNK]"))
    special = [("<s>", 1), ("</s>", 2)]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert prompt_ids(tokenizer, ["word", "word"]) == [expected] * 2


def test_a_prefix_of_one_call_is_not_taken_for_that_of_another():
    tokenizer = byte_tokenizer()
    model = ready(llama(), tokenizer)
    first, second = ([Request("", f"{word} {text}", 6, shots=("the ",)) for text in "ab"] for word in ("a", "x y"))
    engine = Engine(model, tokenizer, Decoding(batch_size=1), share_prefixes=True)
    next(engine.generate(fit(model, tokenizer, first)))  # and the rest is never asked for
    texts = [sample.text for batch in engine.generate(fit(model, tokenizer, second)) for sample in batch]
    assert texts == complete(model, tokenizer, second, Decoding(batch_size=1))


def test_a_cache_that_grows_in_place_holds_what_transformers_own_does():
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()

    def step(batch: int, count: int) -> None:
        new = torch.randn(2, batch, 3, count, 4)
        for one, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(one, other)
        assert ours.get_seq_length() == theirs.get_seq_length() == ours.keys.shape[-2]

    def both(name: str, *arguments: object) -> None:
        for layer in (ours, theirs):
            getattr(layer, name)(*arguments)

    step(2, 5)
    where = ours.keys.data_ptr()
    for count in (1, 3, 1):
        step(2, count)
    assert ours.keys.data_ptr() == where  # nothing was copied
    kept, kept_before = copy.deepcopy(ours), ours.keys.clone()
    both("crop", -4)
    step(2, 2)
    both("batch_repeat_interleave", 3)
    step(6, 1)
    both("batch_select_indices", torch.tensor([4, 0, 3]))
    step(3, ROOM)
    both("reorder_cache", torch.tensor([2, 0, 1]))
    step(3, 1)
    assert torch.equal(kept.keys, kept_before)
    both("reset")
    step(1, 2)
