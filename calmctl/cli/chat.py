"""`calmctl chat`: talk with a model, or with a composed model and its bases side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.loading import loading
from calmctl.errors import UserError
from calmctl.escaping import visible

if TYPE_CHECKING:
    from calmctl.inference.conversation import Conversation
    from calmctl.inference.settings import Decoding

RESTART, END = "/new", "/exit"
# Columns that an answer needs at least to stand beside others.
ANSWER_COLUMNS = 24


def chat(
    model: Annotated[str, typer.Option("--model", "-m", help="A run, folder, GGUF file or hub id, plain or composed.")],
    messages: Annotated[
        list[str] | None,
        typer.Argument(metavar="MESSAGE", help="Say these, one after the other, and end.", show_default=False),
    ] = None,
    beside: Annotated[
        bool, typer.Option("--beside", help="Ask the anchor, the augs and their composition, and show all answers.")
    ] = False,
    system: Annotated[str, typer.Option("--system", help="The system's message before the first one.")] = "",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Tokens of an answer at most.", min=1)
    ] = 256,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    seed: options.SamplingSeed = 0,
    anchor: options.AnchorElsewhere = None,
    aug: options.AugsElsewhere = None,
    allow_different_base: options.AllowDifferentBase = False,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Talk with a model through its chat template; one without a template continues each text.

    Messages are read from the terminal or from stdin, one a line: /new begins anew, /exit or Ctrl-D ends.
    """
    with loading():
        import torch

        from calmctl.evaluation.models import How, Model
        from calmctl.inference.conversation import Conversation, side_by_side
        from calmctl.inference.settings import Decoding

    decoding = Decoding(temperature=temperature, top_p=top_p, seed=seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = Model(model, device, How(anchor or "", tuple(aug or ()), allow_different_base, trust_remote_code))
    if beside:
        talks = side_by_side(loaded.loaded, loaded.tokenizer, system, trust_remote_code)
    else:
        talks = [Conversation(model, loaded.loaded, loaded.tokenizer, system)]
    if system and not any(talk.remembers for talk in talks):
        raise UserError(f"--system: {model} has no chat template, and would not read it; leave it out")
    for talk in talks:
        if not talk.remembers:
            output.note(f"{talk.name}: no chat template: each text is continued, and nothing is remembered")
    told = []
    for message in messages or _read():
        if message == END:
            break
        if message == RESTART:
            for talk in talks:
                talk.restart()
            continue
        try:
            answers = _answers(talks, message, decoding, max_new_tokens, shows=not json)
        except UserError as error:
            if messages:
                raise
            output.note(f"{error} ({RESTART} begins anew)")
            continue
        told.append({"message": message, "answers": answers})
    if json:
        output.print_json(told)


def _read() -> Iterator[str]:
    """Yield the messages that are typed, or the lines of stdin."""
    is_typed = sys.stdin.isatty()
    if is_typed:
        import readline  # noqa: F401  (input() edits lines and recalls earlier ones)
    while True:
        try:
            line = input("\n> " if is_typed else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _answers(
    talks: Sequence[Conversation], message: str, decoding: Decoding, max_new_tokens: int, shows: bool
) -> dict[str, str]:
    """Return the answer of each model to a message; print them, a single one while it is written."""
    if not shows:
        return {talk.name: talk.ask(message, decoding, max_new_tokens) for talk in talks}
    if len(talks) == 1:
        answer = talks[0].ask(message, decoding, max_new_tokens, on_text=_say)
        print(flush=True)
        return {talks[0].name: answer}
    answers = {talk.name: talk.ask(message, decoding, max_new_tokens) for talk in talks}
    _print_beside(message, answers)
    return answers


def _say(piece: str) -> None:
    print(visible(piece), end="", flush=True)


def _print_beside(message: str, answers: dict[str, str]) -> None:
    """Print answers in columns, or below each other where columns would be too narrow."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    texts = {name: Text(visible(answer.strip())) for name, answer in answers.items()}
    if console.width < ANSWER_COLUMNS * len(answers):
        for name, text in texts.items():
            console.print(Text(visible(name), "bold"))
            console.print(text)
        return
    table = Table(title=Text(visible(message)), title_justify="left", box=box.SIMPLE, expand=True)
    for name in texts:
        table.add_column(Text(visible(name)), ratio=1)
    table.add_row(*texts.values())
    console.print(table)
