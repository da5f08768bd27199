"""`calmctl generate`: complete prompts with a model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.loading import loading
from calmctl.cli.progress import watching
from calmctl.errors import UserError
from calmctl.escaping import visible


def generate(
    model: Annotated[str, typer.Option("--model", "-m", help="A run, folder, GGUF file or hub id, plain or composed.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT", help="One or more prompts.", show_default=False)
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--prompts",
            metavar="PATH|ID",
            help="Complete the rows of a file, a pattern, a folder or a hub dataset; - reads JSON Lines from stdin.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="With --prompts: JSONL file to write; the same command resumes what is left."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=THEIRS", help="With --prompts: a column's name, as prompt=question."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Tokens to generate at most.", min=1)
    ] = 64,
    temperature: options.Temperature = 0.0,
    top_p: options.TopP = 1.0,
    num_beams: Annotated[int, typer.Option("--num-beams", help="Beams of beam search.", min=1)] = 1,
    seed: options.SamplingSeed = 0,
    anchor: options.AnchorElsewhere = None,
    aug: options.AugsElsewhere = None,
    allow_different_base: options.AllowDifferentBase = False,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Complete prompts with a model and print what it writes; control characters are written out (--json: as JSON).

    With --prompts and --out, complete every row of a file into another one.
    """
    if bool(prompts) == bool(file):
        raise UserError("give prompts, or --prompts FILE with --out FILE")
    if bool(file) != bool(out) or (columns and not file):
        raise UserError("--prompts FILE and --out FILE (and --column) belong together; give both, or neither")
    mapped = options.as_columns(columns)
    with loading():
        import torch

        from calmctl.evaluation.completing import complete_file, work_folder
        from calmctl.evaluation.models import How, Model
        from calmctl.inference.generation import complete
        from calmctl.inference.settings import Decoding
        from evals import Request

    decoding = Decoding(num_beams=num_beams, temperature=temperature, top_p=top_p, seed=seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    writer = Model(model, device, How(anchor or "", tuple(aug or ()), allow_different_base, trust_remote_code))
    if file and out:
        with watching({out.name: work_folder(out)}):
            count = complete_file(file, out, writer, decoding, max_new_tokens, mapped)
        if json:
            output.print_json({"out": str(out), "completions": count})
        else:
            print(f"{count:,} completions in {visible(str(out))}")
        return
    prompts = prompts or []
    tokenizer, loaded = writer.tokenizer, writer.loaded
    asked = [Request(str(number), prompt, max_new_tokens) for number, prompt in enumerate(prompts)]
    if json or num_beams > 1:
        texts = complete(loaded, tokenizer, asked, decoding)
        if json:
            output.print_json([{"prompt": p, "completion": c} for p, c in zip(prompts, texts, strict=True)])
            return
        for prompt, text in zip(prompts, texts, strict=True):
            print(visible(f"{prompt}{text}"))
        return
    for question in asked:
        unsaid = [question.prompt]
        complete(loaded, tokenizer, [question], decoding, on_text=partial(_say, unsaid))
        print(visible("".join(unsaid)))


def _say(unsaid: list[str], piece: str) -> None:
    """Print a piece of a completion; the first time after the prompt, so that a rejected prompt is not printed."""
    print(visible("".join([*unsaid, piece])), end="", flush=True)
    unsaid.clear()
