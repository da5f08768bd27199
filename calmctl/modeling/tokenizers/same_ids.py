"""Compare tokenizers: whether an aug can share the anchor's, and whether a stored one reads as before."""

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from transformers import PreTrainedTokenizerBase

# Parts of a tokenizer's JSON that decide the ids of a text; augs never decode.
PARTS = ("added_tokens", "model", "normalizer", "pre_tokenizer")
# Texts in many scripts, covering what tokenizers differ in: spaces, digits, case, accents, marks, lines, code.
PROBES = (
    "a", "Hello, world!  It's 12,345.67 km.", " before", "after ", "two  spaces\t\ttabs\n\nlines\r\n", "snake_CASE",
    "naïve cafe\u0301 \ufb01 ½ ①", "\uff21\uff22 «€»", "привет, мир", "γειά", "שלום", "مرحبا ١٢٣", "नमस्ते", "สวัสดี",
    "你好\uff0c世界。", "こんにちは カタカナ", "안녕하세요", "🙂 👩\u200d👧", "def f(x):\n    return x  # 1e-3\n",
    "3 + 4 = 7", "\u200b\u00a0",
)  # fmt: skip
# Reserved tokens without a use (Gemma, Llama 3); a text contains one only if it spells it out.
RESERVED = re.compile(r"<unused\d+>|<\|reserved_special_token_\d+\|>")
LONGEST_SHOWN = 120


def num_token_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return one more than the largest id a tokenizer can produce. A model's vocabulary may be padded beyond it."""
    return max(tokenizer.get_vocab().values()) + 1


def differences(anchor: PreTrainedTokenizerBase, aug: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield the differences between two tokenizers, in words.

    Compared is whatever decides the ids of a text and the meaning of an id: vocabulary, added tokens, merges and the
    other settings of the model, normaliser and pre-tokeniser, the beginning-of-text token, and tokens added around a
    text. Not compared are end and padding tokens (only the anchor's are used, and instruction-tuned models differ in
    them from the models that they were tuned from), and ids that the anchor's tokenizer only reserves (models for code
    put their markers there).
    """
    our_tokens, their_tokens = (_tokens_by_id(tokenizer) for tokenizer in (anchor, aug))
    reserved = {token_id for token_id, token in our_tokens.items() if RESERVED.fullmatch(token)}
    for token_id in sorted((our_tokens.keys() | their_tokens.keys()) - reserved):
        yield from _differing(f"token {token_id}", our_tokens.get(token_id), their_tokens.get(token_id))
    ours, theirs = (_without(_backend(tokenizer), reserved) for tokenizer in (anchor, aug))
    if ours and theirs:
        merges = (each["model"].pop("merges", []) for each in (ours, theirs))
        for place, (our, their) in enumerate(zip_longest(*merges)):
            yield from _differing(f"merge {place}", our, their)
        for part in PARTS:
            yield from _differing(part, ours[part], theirs[part])
    yield from _differing("bos_token_id", anchor.bos_token_id, aug.bos_token_id)
    for probe in PROBES:
        yield from _differing(f"{probe!r} in ids", ids_of(anchor, probe), ids_of(aug, probe))


def differences_in_json(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield the differences between the settings of two tokenizers, post-processor and decoder included."""
    ours, theirs = (getattr(tokenizer, "backend_tokenizer", None) for tokenizer in (one, other))
    if ours is not None and theirs is not None and ours.to_str() == theirs.to_str():
        return  # without taking them apart, which takes a second for large vocabularies
    ours, theirs = _backend(one), _backend(other)
    for part in (*PARTS, "post_processor", "decoder"):
        if ours.get(part) != theirs.get(part):
            yield f"{part} is {_shown(ours.get(part))} and becomes {_shown(theirs.get(part))}"


def reading(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Return ids and decoded text of texts in many scripts and of a tokenizer's special tokens."""
    found = []
    for text in (*PROBES, *(f"a {token} a" for token in tokenizer.all_special_tokens)):
        ids = ids_of(tokenizer, text)
        found.append([ids, tokenizer.decode(ids) if isinstance(ids, list) else ""])
    return found


def special_ids(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Return the ids of the tokens that begin, end and pad a text, and how many tokens there are."""
    return [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)]


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int] | str:
    """Return the ids of a text, or the error if the vocabulary has no token for part of it."""
    try:
        return tokenizer(text)["input_ids"]
    except Exception as error:  # the tokenizers library raises bare `Exception`
        return str(error)


def _differing(what: str, our: Any, their: Any) -> Iterator[str]:
    """Yield the differences between two JSON values, down to the innermost settings."""
    if our == their:
        return
    if isinstance(our, dict) and isinstance(their, dict):
        for key in dict.fromkeys([*our, *their]):
            # Whether a token is special matters only in decoding, and augs never decode.
            if key != "special":
                yield from _differing(f"{what}.{key}", our.get(key), their.get(key))
    elif isinstance(our, list) and isinstance(their, list) and any(isinstance(item, dict | list) for item in our):
        for place, (one, other) in enumerate(zip_longest(our, their)):
            yield from _differing(f"{what}.{place}", one, other)
    else:
        yield f"{what} is {_shown(our)} in the anchor's tokenizer and {_shown(their)} in the aug's"


def _tokens_by_id(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    return {token_id: token for token, token_id in tokenizer.get_vocab().items()}


def _backend(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the JSON of a fast tokenizer; empty for a Python one, which is compared by its results only."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str()) if backend is not None else {}


def _without(backend: dict[str, Any], token_ids: set[int]) -> dict[str, Any]:
    """Return the JSON of a tokenizer without some of its tokens."""
    if not backend or not token_ids:
        return backend
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["id"] not in token_ids]
    vocabulary = backend["model"].get("vocab")
    if isinstance(vocabulary, dict):
        backend["model"]["vocab"] = {name: number for name, number in vocabulary.items() if number not in token_ids}
    return backend


def _shown(value: Any) -> str:
    """Return a value as users write it, shortened: text quoted, a merge as its two parts, anything else as JSON."""
    if value is None:
        return "missing"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = " ".join(value)
    shown = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
