"""Tokenizers of composed models: the first difference is named, and what does not matter is not one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import calmctl.modeling.composition as composition
from calmctl.errors import UserError
from calmctl.modeling.bases.sources import find_tokenizer
from calmctl.modeling.composition import compose
from calmctl.modeling.tokenizers.same_ids import differences, num_token_ids
from tests.models import VOCABULARY, llama

TOKENS = ["<s>", "</s>", *"abcdefgh", "Ġ", "ab", "abc", "de", "cd"]
MERGES = [("a", "b"), ("ab", "c"), ("d", "e"), ("c", "d")]


def bpe(tokens: list[str] = TOKENS, merges: list[tuple[str, str]] = MERGES, **special: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", **special}
    )


def edited(change: Callable[[dict[str, Any]], object]) -> PreTrainedTokenizerFast:
    """Return the same tokenizer with a change to its JSON."""
    settings = json.loads(bpe().backend_tokenizer.to_str())
    change(settings)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(settings)), **names)


def with_bos(settings: dict[str, Any]) -> None:
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, sequence],
        "pair": [sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }


@pytest.mark.parametrize("other, message", [
    (lambda: bpe([*TOKENS[:10], "#", *TOKENS[11:]]), "token 10 is 'Ġ' in the anchor's tokenizer and '#' in the aug's"),
    (lambda: bpe([*TOKENS, "x"]), "token 15 is missing in the anchor's tokenizer and 'x' in the aug's"),
    (lambda: bpe(merges=[*MERGES[:2], MERGES[3], MERGES[2]]), "merge 2 is 'd e' in .* and 'c d' in the aug's"),
    (lambda: bpe(merges=MERGES[:3]), "merge 3 is 'c d' in .* and missing in the aug's"),
    (lambda: edited(lambda s: s.update(normalizer={"type": "Lowercase"})), 'normalizer is missing in .*"Lowercase"'),
    (lambda: edited(lambda s: s["pre_tokenizer"].update(use_regex=False)), "pre_tokenizer.use_regex is true .* false"),
    (lambda: edited(lambda s: s["model"].update(byte_fallback=True)), "model.byte_fallback is false .* true"),
    (lambda: edited(lambda s: s["added_tokens"][1].update(lstrip=True)), "added_tokens.1.lstrip is false in .* true"),
    (lambda: edited(with_bos), r"'a' in ids is \[2\] in the anchor's tokenizer and \[0, 2\] in the aug's"),
    (lambda: bpe(bos_token="</s>", eos_token="<s>"), "bos_token_id is 0 in the anchor's tokenizer and 1 in the aug's"),
], ids=[
    "token", "size", "merge", "merges", "normalizer", "pre_tokenizer", "model", "added", "bos added", "bos id",
])  # fmt: skip
def test_the_first_difference_is_named(other, message):
    assert re.match(message, next(differences(bpe(), other())))


@pytest.mark.parametrize("other", [
    bpe,
    lambda: bpe(pad_token="<s>"),
    lambda: bpe(eos_token="<s>"),
    lambda: edited(lambda s: s.update(decoder=None)),
], ids=["the same", "pad", "eos", "decoder"])  # fmt: skip
def test_what_only_the_anchor_uses_may_differ(other):
    assert not list(differences(bpe(), other()))


def test_what_the_anchor_only_reserves_may_mean_something_to_the_aug():
    """CodeGemma has its markers where Gemma has <unused60>; the other way round the aug would not know them."""
    plain, code = (bpe([*TOKENS, name]) for name in ("<unused0>", "<|fim_prefix|>"))
    code.add_tokens(["<|fim_prefix|>"])
    assert not list(differences(plain, code))
    assert "token 15 is '<|fim_prefix|>' in the anchor's" in next(differences(code, plain))


def save(folder: Path, tokenizer: PreTrainedTokenizerFast | None, seed: int = 0, vocabulary: int = VOCABULARY) -> str:
    model = llama(seed=seed)
    model.resize_token_embeddings(vocabulary)
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)


def test_compose_checks_tokenizers_before_it_loads_weights(tmp_path, monkeypatch):
    anchor, aug = save(tmp_path / "anchor", bpe()), save(tmp_path / "aug", bpe(merges=MERGES[:3]))
    monkeypatch.setattr(composition, "load_base", lambda *_, **__: pytest.fail("weights were loaded"))
    with pytest.raises(UserError, match="merge 3 is 'c d'"):
        compose(anchor, aug)


def test_what_has_no_tokenizer_is_compared_by_its_vocabulary(tmp_path):
    anchor = save(tmp_path / "anchor", None, vocabulary=64)
    assert find_tokenizer(anchor) is None
    with pytest.raises(UserError, match="the aug has 50 token ids, the anchor 64"):
        compose(anchor, save(tmp_path / "aug", bpe()))
    compose(save(tmp_path / "small", bpe()), save(tmp_path / "wide", None, vocabulary=64))


def test_a_padded_vocabulary_needs_no_padded_aug(tmp_path):
    """Ids beyond the tokenizer's cannot occur, so the aug need not embed them; those it can produce it must."""
    anchor = save(tmp_path / "anchor", bpe(), vocabulary=64)
    compose(anchor, save(tmp_path / "aug", bpe()))
    assert num_token_ids(AutoTokenizer.from_pretrained(anchor)) == len(TOKENS)
    with pytest.raises(UserError, match=f"the aug has 8 token ids, the anchor's tokenizer {len(TOKENS)}"):
        compose(anchor, save(tmp_path / "narrow", None, vocabulary=8))
