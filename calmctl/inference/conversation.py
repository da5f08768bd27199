"""Conversations with a model, and with a composed model and its bases side by side."""

from collections.abc import Callable

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from calmctl.errors import UserError
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import complete
from calmctl.modeling.bases.locating import name_of
from calmctl.modeling.chat import ChatTemplate, Message
from calmctl.modeling.composed import ComposedModelForCausalLM
from calmctl.modeling.composition import tokenizer_of
from evals import Request


class Conversation:
    """What was said to a model and what it answered, rendered by its tokenizer's chat template.

    A model without a chat template continues each text, and remembers nothing.

    Args:
        name: of the model, for display.
        system: the first message, if any.
    """

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, system: str = "") -> None:
        self.name, self._model, self._tokenizer = name, model, tokenizer
        self._template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        self.restart()

    @property
    def remembers(self) -> bool:
        """Return whether the model has a chat template."""
        return self._template is not None

    def restart(self) -> None:
        """Forget everything but the system's message."""
        self._messages = list(self._system)

    def ask(
        self, text: str, decoding: Decoding, max_new_tokens: int, on_text: Callable[[str], None] | None = None
    ) -> str:
        """Return the answer to a message; both are remembered.

        Args:
            on_text: receives the answer while it is written; not with beams.

        Raises:
            UserError: the template refuses the message, or the conversation no longer fits into the model's context.
        """
        messages = [*self._messages, {"role": "user", "content": text}]
        prompt = self._template.prompt(messages) if self._template else text
        request = Request("0", prompt, max_new_tokens)
        answer = complete(self._model, self._tokenizer, [request], decoding, on_text=on_text)[0]
        if self._template:
            self._messages = [*messages, {"role": "assistant", "content": answer.strip()}]
        return answer


def side_by_side(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, system: str = "", trust_remote_code: bool = False
) -> list[Conversation]:
    """Return conversations with the anchor, with each aug and with their composition, in this order.

    Raises:
        UserError: the model is not composed, or the tokenizer beside an aug cannot be loaded.
    """
    if not isinstance(model, ComposedModelForCausalLM):
        raise UserError(f"--beside: a {type(model).__name__} has no bases to show beside it; give a composed model")
    anchor, *augs = model.bases()
    found = [Conversation(_named("anchor", anchor), anchor, tokenizer, system)]
    for index, aug in enumerate(augs):
        read_by = tokenizer
        if (own := model.own_tokenizers[index]) is not None:  # the one beside the aug has its chat template
            beside = tokenizer_of(aug, trust_remote_code=trust_remote_code)
            read_by = beside or PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(own.aug.json))
        role = "aug" if len(augs) == 1 else f"aug {index}"
        found.append(Conversation(_named(role, aug), aug, read_by, system))
    return [*found, Conversation("composed", model, tokenizer, system)]


def _named(role: str, base: PreTrainedModel) -> str:
    """Return a role with the name of the model that has it."""
    return f"{role}: {name_of(base.config._name_or_path or type(base).__name__)}"
