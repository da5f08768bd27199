"""Copies of tokenizers that only tokenise: no special tokens in texts, no space before a text."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from calmctl.errors import UserError

# Chat and fill-in-the-middle markers, which not every tokenizer calls special.
MARKER = re.compile(r"<([|\uff5c]).*\1>", re.DOTALL)
UNWRITTEN = "\U0010ffff"  # a noncharacter: in no text


def text_tokenizer(tokenizer: Tokenizer) -> tuple[Tokenizer, str]:
    """Return a tokenizer that reads any text as if it continued another, and what to put before one that begins.

    It finds no markers in texts, and shares its vocabulary with `tokenizer`, which does not change.

    Raises:
        UserError: its added tokens or its settings cannot be copied.
    """
    settings = settings_of(tokenizer)
    before = " " if any([_puts_no_space(step) for step in steps_of(settings)]) else ""
    added = added_tokens(tokenizer)
    bare = _assembled(tokenizer.model, settings, added)
    spelt_out = [
        token_id
        for token_id, token in added.items()
        if token.special and len(token.content) > 1 and token_id in ids_of(bare, token.content)
    ]
    if spelt_out:  # the model's own vocabulary has them too
        bare = _assembled(_renamed(tokenizer, added, spelt_out), settings, added)
    return bare, before


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy of a tokenizer that neither truncates nor pads nor finds markers in texts."""
    return _assembled(tokenizer.model, settings_of(tokenizer), added_tokens(tokenizer))


def added_tokens(tokenizer: Tokenizer) -> dict[int, AddedToken]:
    """Return the added tokens of a tokenizer by id; only markers, not text, are special.

    Markers are tokens that are special, are written as markers, or strip the white space around them; white space
    itself is text.
    """
    tokens = tokenizer.get_added_tokens_decoder()
    for token in tokens.values():
        is_marker = token.special or token.lstrip or token.rstrip or MARKER.fullmatch(token.content)
        token.special = bool(is_marker) and not token.content.isspace()
    return tokens


def settings_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the normaliser and pre-tokeniser of a tokenizer as JSON of one with an empty vocabulary."""
    shell = Tokenizer(models.BPE())
    shell.normalizer, shell.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    return json.loads(shell.to_str())


def _assembled(model: Any, settings: dict[str, Any], added: dict[int, AddedToken]) -> Tokenizer:
    """Build a tokenizer from a model, settings and added tokens by id; special tokens in texts are text to it."""
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    tokenizer.model = model
    tokenizer.add_tokens([added[token_id] for token_id in sorted(added)])
    tokenizer.encode_special_tokens = True
    names = {token_id: token.content for token_id, token in tokenizer.get_added_tokens_decoder().items()}
    if names != {token_id: token.content for token_id, token in added.items()}:
        raise UserError("a tokenizer has gaps between the ids of its added tokens; save it anew with transformers")
    return tokenizer


def steps_of(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every normaliser and pre-tokeniser in the JSON of a tokenizer, nested ones included."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from steps_of(inner)
    if isinstance(part, dict) and "type" in part:
        yield part


def _puts_no_space(step: dict[str, Any]) -> bool:
    """Keep one step of a tokenizer from putting a space before a text; return whether it did."""
    if step["type"] == "Prepend":
        step["prepend"], had = "", step["prepend"]
        return had in (" ", "\u2581")
    for setting, nothing in (("prepend_scheme", "never"), ("add_prefix_space", False)):
        if step.get(setting, nothing) != nothing:
            step[setting] = nothing
            return True
    return False


def _renamed(tokenizer: Tokenizer, added: dict[int, AddedToken], token_ids: list[int]) -> Any:
    """Return the model of a tokenizer with these added tokens renamed, so that no text contains them; also in `added`.

    Tokens that take part in merges keep their names: they are text as well.
    """
    model = json.loads(tokenizer.model.__getstate__())
    merged = {part for merge in model.get("merges", ()) for part in (*merge, "".join(merge))}
    names = {
        added[token_id].content: f"{UNWRITTEN}{token_id}"
        for token_id in token_ids
        if added[token_id].content not in merged
    }
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(name, name): token_id for name, token_id in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(name, name), score] for name, score in model["vocab"]]
    for token_id in token_ids:
        if (name := added[token_id].content) in names:
            added[token_id] = AddedToken(names[name], special=True, normalized=False)
    return Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model})).model


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text; empty if the vocabulary has no token for part of it."""
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:  # the tokenizers library raises bare `Exception`
        return []
