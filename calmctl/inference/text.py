"""Text: exact decoding of token ids, stop strings, and streaming of a completion."""

import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from calmctl.modeling.prompt_ids import ids_of

# What a decoder returns for bytes that are not (yet) a whole character.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
CONTEXT = 8  # last tokens of a prompt: enough to decode a completion as after the whole prompt
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
# Tokens that open, close or pad a text. All other special tokens are part of it: in some tokenizers line breaks,
# indentation and markers such as [DONE] are special.
FRAME = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id")


def frame_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that open, close or pad a text and are never part of it."""
    return {getattr(tokenizer, name) for name in FRAME} - {None}


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the exact text of token ids, without frame tokens and without cleaning up spaces.

    If the ids end within a character, keep the text before it: decoders of byte tokens would give up all bytes in a
    row.
    """
    frame = frame_ids(tokenizer)
    inside = [token for token in ids if token not in frame]
    text = _decoded(tokenizer, inside)
    if text.endswith(UNFINISHED) and (torn := _num_torn(tokenizer.convert_ids_to_tokens(inside[-3:]))):
        return _decoded(tokenizer, inside[:-torn]) + UNFINISHED
    return text


def _num_torn(tokens: Sequence[str]) -> int:
    """Return how many of the last tokens are byte tokens of an unfinished character."""
    for number in range(1, len(tokens) + 1):
        found = [_BYTE.fullmatch(token) for token in tokens[-number:]]
        if not all(found):
            return 0
        try:
            if not getincrementaldecoder("utf-8")().decode(bytes(int(each[1], 16) for each in found if each)):
                return number
        except UnicodeDecodeError:  # these begin within a character
            pass
    return 0


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def completion_of(tokenizer: PreTrainedTokenizerBase, prompt_ids: Sequence[int], new_ids: Sequence[int]) -> str:
    """Return the text that new ids add to a prompt's; both are decoded together, so that a leading space survives.

    If that changes the prompt's text, as bytes that are no character can, decode the new ids alone.
    """
    prompt, whole = text_of(tokenizer, prompt_ids), text_of(tokenizer, [*prompt_ids, *new_ids])
    return whole[len(prompt) :] if whole.startswith(prompt) else text_of(tokenizer, new_ids)


def written_otherwise(tokenizer: PreTrainedTokenizerBase, stops: Iterable[str]) -> dict[str, str | None]:
    """Return the stop strings that encoding and decoding changes, with their new form; None = no usable form.

    A model whose tokenizer reads `问题：` as `问题:` has never seen the first and ends its answer with the second. Not
    usable is a line break that becomes a space: it would end every completion at its first word.
    """
    written = {stop: _as_written(tokenizer, stop) for stop in stops}
    return {stop: form for stop, form in written.items() if form != stop}


def _as_written(tokenizer: PreTrainedTokenizerBase, stop: str) -> str | None:
    """Return a stop string after encoding and decoding; None if that form would end other texts as well."""
    if stop == tokenizer.eos_token:
        return stop
    ids = ids_of(tokenizer, stop)
    if ids is None or not _unknown_ids(tokenizer).isdisjoint(ids):
        return None
    once = _read_back(tokenizer, stop)
    if stop in once or stop in _read_back(tokenizer, _within(tokenizer, stop)):
        return stop
    twice = _read_back(tokenizer, 2 * stop)
    form = twice[len(once) :] if twice.startswith(once) else once
    loses_space = bool(form) and any(stop[end].isspace() and not form[end].isspace() for end in (0, -1))
    return None if not form.strip() or loses_space or not frame_ids(tokenizer).isdisjoint(ids) else form


def _read_back(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return text_of(tokenizer, ids_of(tokenizer, text) or [])


def _within(tokenizer: PreTrainedTokenizerBase, stop: str) -> str:
    """Return a text with a stop string inside it, because tokenizers drop spaces at the ends."""
    return 3 * stop if stop.strip() else stop.join(2 * [_own_word(tokenizer)])


def _own_word(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a visible word that encoding and decoding does not change."""
    words = (tokenizer.convert_tokens_to_string([token]).strip() for token in tokenizer.get_vocab())
    return next((word for word in words if word and _read_back(tokenizer, word) == word), "")


def _unknown_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of the unknown token."""
    backend = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    unknown = getattr(backend, "unk_token", None)
    return {tokenizer.unk_token_id, backend.token_to_id(unknown) if backend is not None and unknown else None} - {None}


class StopStrings(StoppingCriteria):
    """Ends a row whose completion holds a stop string.

    transformers' own criterion analyses the vocabulary, which fails for word-level tokenizers. This one decodes the end
    of a row, but only after a token that can be the last of a stop string, as few can.

    Args:
        starts: of each prompt, the place of its first new token.
        may_end: token -> whether it can end a stop string; filled here, kept for batches with the same stop strings.
        prompts: the ids of each, without padding; beams of one prompt are adjacent.

    Attributes:
        ends: row -> number of new tokens when its first stop string was complete.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        stops: tuple[str, ...],
        starts: Sequence[int],
        may_end: dict[int, bool],
        prompts: Sequence[Sequence[int]] = ((),),
    ) -> None:
        self.tokenizer, self.stops, self.starts = tokenizer, stops, starts
        self.contexts = [prompt[-CONTEXT:] for prompt in prompts]
        # A token has at least one byte, so this many tokens hold any stop string and the rest of its last token.
        self.tail = max(len(stop.encode()) for stop in stops) + 8
        self.last_characters = {stop[-1] for stop in stops} | {UNFINISHED}
        # Decoders drop or add spaces between tokens, so a single token does not show whether a space ends it.
        self.any_token_may_end = any(stop[-1].isspace() and stop[-1] != "\n" for stop in stops)
        self.may_end = may_end
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """Return which rows (batch,) have ended."""
        tails = input_ids[:, -self.tail :].tolist()
        beams = len(tails) // len(self.contexts)
        ended = [False] * len(tails)
        for row, tail in enumerate(tails):
            num_new = input_ids.shape[1] - self.starts[row // beams]
            if self._may_end(tail[-1]) and (num_new <= self.tail or self._may_hold_stop(tail)):
                # The tail alone may decode differently (spaces, pieces of words), so decode the whole completion.
                ids = input_ids[row, -num_new:].tolist()
                ended[row] = self._stops_in(completion_of(self.tokenizer, self.contexts[row // beams], ids))
            if ended[row]:
                self.ends.setdefault(row, num_new)
        return torch.tensor(ended, device=input_ids.device)

    def _may_hold_stop(self, tail: list[int]) -> bool:
        text = text_of(self.tokenizer, tail)
        return self._stops_in(text) or UNFINISHED in text  # perhaps a character that began before the tail

    def _stops_in(self, text: str) -> bool:
        return any(stop in text for stop in self.stops)

    def _may_end(self, token: int) -> bool:
        if self.any_token_may_end:
            return True
        if token not in self.may_end:
            self.may_end[token] = not self.last_characters.isdisjoint(text_of(self.tokenizer, [token]))
        return self.may_end[token]


class TextStream(BaseStreamer):
    """Passes on each new piece of a completion; together the pieces are exactly the completion.

    Prompt and completion are decoded together, so that a leading space survives, and an unfinished character is held
    back.

    Args:
        on_text: receives the pieces.
        ends: ids that end the completion; nothing after them is passed on.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, on_text: Callable[[str], None], ends: Collection[int] = ()
    ) -> None:
        self.tokenizer, self.on_text, self.ends = tokenizer, on_text, ends
        self.prompt_ids: list[int] | None = None
        self.new_ids: list[int] = []
        self.passed_on = 0
        self.has_ended = False

    def put(self, value: Tensor) -> None:
        """Take the prompt's ids (1, seq) first, then new ids (1,) one step after the other."""
        ids = value.flatten().tolist()
        if self.prompt_ids is None:
            self.prompt_ids = ids
            return
        self.has_ended = self.has_ended or ids[0] in self.ends
        if self.has_ended:
            return
        self.new_ids += ids
        text = self._text()
        if not text.endswith(UNFINISHED):
            self._pass_on(text)

    def end(self) -> None:
        """Pass on what was held back."""
        self._pass_on(self._text())

    def _text(self) -> str:
        return completion_of(self.tokenizer, self.prompt_ids or [], self.new_ids)

    def _pass_on(self, text: str) -> None:
        if piece := text[self.passed_on :]:
            self.on_text(piece)
            self.passed_on = len(text)
