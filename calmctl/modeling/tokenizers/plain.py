"""Tokenizers that cut text and nothing else, made from ones that know special tokens and where texts begin."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from calmctl.errors import UserError

# Tokens of chats and of gaps in code, which not every tokenizer calls special.
MARKER = re.compile(r"<([|\uff5c]).*\1>", re.DOTALL)
UNWRITTEN = "\U0010ffff"  # no character: it is in no text


def text_tokenizer(tokenizer: Tokenizer) -> tuple[Tokenizer, str]:
    """Return a tokenizer that cuts any text as if something were before it, and what begins a text instead.

    It finds no markers in texts, and shares its vocabulary with `tokenizer`, which does not change.

    Raises:
        UserError: its added tokens or its settings cannot be taken over.
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
    if spelt_out:  # the model itself finds them, whatever is added to it
        bare = _assembled(_renamed(tokenizer, added, spelt_out), settings, added)
    return bare, before


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer that cuts texts as another does, but neither cuts them off nor pads them nor finds markers."""
    return _assembled(tokenizer.model, settings_of(tokenizer), added_tokens(tokenizer))


def added_tokens(tokenizer: Tokenizer) -> dict[int, AddedToken]:
    """Return the added tokens of a tokenizer by id, as special ones only those that are markers, not text.

    What is written as a marker is one, and what takes the white space around it with it; white space is text.
    """
    tokens = tokenizer.get_added_tokens_decoder()
    for token in tokens.values():
        is_marker = token.special or token.lstrip or token.rstrip or MARKER.fullmatch(token.content)
        token.special = bool(is_marker) and not token.content.isspace()
    return tokens


def settings_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the JSON of a tokenizer, with an empty vocabulary in place of its own."""
    shell = Tokenizer(models.BPE())
    shell.normalizer, shell.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    return json.loads(shell.to_str())


def _assembled(model: Any, settings: dict[str, Any], added: dict[int, AddedToken]) -> Tokenizer:
    """Return a tokenizer of a model, settings and tokens by their ids, to which special tokens are text."""
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    tokenizer.model = model
    tokenizer.add_tokens([added[token_id] for token_id in sorted(added)])
    tokenizer.encode_special_tokens = True
    names = {token_id: token.content for token_id, token in tokenizer.get_added_tokens_decoder().items()}
    if names != {token_id: token.content for token_id, token in added.items()}:
        raise UserError("a tokenizer has gaps between the ids of its added tokens; save it anew with transformers")
    return tokenizer


def steps_of(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every normaliser and pre-tokeniser in the JSON of a tokenizer, those in sequences too."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from steps_of(inner)
    if isinstance(part, dict) and "type" in part:
        yield part


def _puts_no_space(step: dict[str, Any]) -> bool:
    """Let one step of a tokenizer put no space before a text; return whether it did."""
    if step["type"] == "Prepend":
        step["prepend"], had = "", step["prepend"]
        return had in (" ", "\u2581")
    for setting, nothing in (("prepend_scheme", "never"), ("add_prefix_space", False)):
        if step.get(setting, nothing) != nothing:
            step[setting] = nothing
            return True
    return False


def _renamed(tokenizer: Tokenizer, added: dict[int, AddedToken], token_ids: list[int]) -> Any:
    """Return the model of a tokenizer in which no text has the names of some added tokens; rename those in `added` too.

    Tokens that are merged, or that others are merged from, keep their names: they are text as well.
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
    """Return the ids of a text; none where the vocabulary has none for it."""
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:  # the tokenizers library has no error of its own
        return []
