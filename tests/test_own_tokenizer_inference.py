"""The engine and the tools of others with augs that have tokenizers of their own: as with any composed model."""

import pytest

from calmctl.errors import UserError
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import complete
from calmctl.inference.likelihood import encoded_pairs
from calmctl.inference.prompt import Prompt, fit
from calmctl.modeling.composition import compose
from calmctl.modeling.context import aug_contexts, context_length
from tests.own_tokenizers import PAIRS, base, opened

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
    asked = [Prompt(text, 4, shots=SHOTS * 4) for text in TEXTS]
    fitted = fit(model, tokenizer, asked)
    assert fitted.num_shortened == len(asked)
    for prompt, ids in zip(fitted.prompts, fitted.ids, strict=True):
        assert aug.longest(ids) + 4 <= 24
        longer = Prompt(prompt.text, 4, shots=(SHOTS * 4)[-len(prompt.shots) - 1 :])
        assert aug.longest(tokenizer(longer.whole)["input_ids"]) + 4 > 24
    assert len(complete(model, tokenizer, asked, Decoding())) == len(asked)
    with pytest.raises(UserError, match="4 of 4 prompts exceed the context of an aug, in its own tokens"):
        fit(model, tokenizer, asked, "fail")
    with pytest.raises(UserError, match="1 of 2 prompts exceed, with their references, the 24 tokens of its own"):
        encoded_pairs(model, tokenizer, ["", "The"], ["Привет, мир! " * 6, " fox"])
