"""Conversations as text, through the tokenizer's own chat template."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.prompt_ids import ids_around

Message = Mapping[str, Any]
DATE = datetime(2024, 7, 26)
"""Today, for templates that ask: prompts must not change overnight. Llama 3's has this date where it cannot ask."""
_WORD, _ASKS_DATE = "answering", "strftime_now"
# Put before such a template: transformers makes texts of functions that are given to a template as variables.
_DIRECTIVES = [*(f"%{each}" for each in "aAbBcdDeFfHIjmMpRSTUwWxXyY"), *(f"%-{each}" for each in "dHIjmMSy")]
_TODAY = (
    f"{{% macro {_ASKS_DATE}(format) %}}{{{{ format"
    + "".join(f" | replace({each!r}, {DATE.strftime(each)!r})" for each in _DIRECTIVES)
    + " }}{% endmacro %}\n"
)


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token with which a tokenizer's chat template ends an answer (see `ChatTemplate.end`)."""
    end = ChatTemplate(tokenizer).end if tokenizer.chat_template else ""
    return int(tokenizer.convert_tokens_to_ids(end)) if end else None  # type: ignore[arg-type]


class ChatTemplate:
    """The chat template of a tokenizer.

    Special tokens that the tokenizer puts before every text itself are left out of rendered texts.

    Raises:
        UserError: the tokenizer has none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.chat_template:
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template for rows of messages; give rows of "
                "prompt and completion, or a model with a chat template"
            )
        opening, _ = ids_around(tokenizer)
        self._tokenizer = tokenizer
        self._opening = "".join(map(str, tokenizer.convert_ids_to_tokens(opening)))
        added = tokenizer.added_tokens_decoder.values()
        self._special = tuple({*tokenizer.all_special_tokens, *(each.content for each in added if each.special)})

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the text after which a model writes the next answer of a conversation.

        Raises:
            UserError: the template refuses the conversation.
        """
        return self._rendered(messages, asks=True)

    def answers(self, messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
        """Yield a prompt and a completion for each answer of the assistant in a conversation.

        The prompt is that of the conversation before the answer, the completion what the template writes after it, up
        to the end of the turn, without the tokenizer's end-of-text token (`train.append_eos` adds it). A message of
        the assistant that begins the conversation answers nothing.

        Raises:
            UserError: the template refuses the conversation, or writes something else before an answer than when it
                asks for it.
        """
        for place, message in enumerate(messages):
            if message["role"] != "assistant" or place == 0:
                continue
            prompt, whole = self.prompt(messages[:place]), self._rendered(messages[: place + 1], asks=False)
            if not whole.startswith(prompt):
                raise UserError(
                    f"the chat template writes something else before the answer in message {place + 1} than when it "
                    "asks for it, so that the answer cannot be told from its prompt; give rows of prompt and "
                    "completion, or a tokenizer with another template"
                )
            yield prompt, self._without_end(whole[len(prompt) :])

    @property
    def date(self) -> str | None:
        """Return the date that the template may write as today's (`DATE`); None if it asks for none."""
        return DATE.date().isoformat() if _ASKS_DATE in str(self._tokenizer.chat_template) else None

    @cached_property
    def end(self) -> str:
        """Return the special token with which an answer ends; empty if it is the end-of-text token, or there is none.

        The text of an answer does not hold it: a model that writes it has ended its turn.
        """
        talk = [{"role": "user", "content": _WORD}, {"role": "assistant", "content": _WORD}]
        try:
            _, word, tail = self._rendered(talk, asks=False).rpartition(_WORD)
        except UserError:  # a template for other conversations
            return ""
        ends = [token for token in self._special if word and tail.lstrip().startswith(token)]
        end = max(ends, key=len, default="")
        return "" if end == self._tokenizer.eos_token else end

    def _rendered(self, messages: Sequence[Message], asks: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=f"{_TODAY}{self._tokenizer.get_chat_template()}" if self.date else None,
                tokenize=False,
                add_generation_prompt=asks,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"the chat template refuses the conversation ({reason}); correct it") from None
        return str(text).removeprefix(self._opening)

    def _without_end(self, completion: str) -> str:
        """Return a completion without white space after its last special token, and without the end-of-text token."""
        bare = completion.rstrip()
        cut = bare if bare.endswith(self._special) else completion
        return cut.removesuffix(str(self._tokenizer.eos_token)) if self._tokenizer.eos_token else cut
