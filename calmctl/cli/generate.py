"""`calmctl generate`: complete prompts with a model."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.loading import loading
from calmctl.escaping import visible


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="One or more prompts.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A run, folder, GGUF file or hub id, plain or composed.")],
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Tokens to generate at most.", min=1)
    ] = 64,
    temperature: Annotated[float, typer.Option("--temperature", help="0 = greedy; above, sampling.", min=0.0)] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Nucleus of sampling.", min=0.0, max=1.0)] = 1.0,
    num_beams: Annotated[int, typer.Option("--num-beams", help="Beams of beam search.", min=1)] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Seed of sampling.", min=0, max=2**32 - 1)] = 0,
    allow_different_base: options.AllowDifferentBase = False,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Complete prompts with a model and print what it writes; control characters are written out (--json: as JSON)."""
    with loading():
        import torch

        from calmctl.inference.generation import complete
        from calmctl.inference.settings import Decoding
        from calmctl.modeling.bases.sources import load_model, load_tokenizer, quiet_libraries
        from evals import Request

    quiet_libraries()
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    loaded = load_model(model, allow_different_base=allow_different_base, trust_remote_code=trust_remote_code).eval()
    if torch.cuda.is_available():
        loaded.to("cuda")
    decoding = Decoding(num_beams=num_beams, temperature=temperature, top_p=top_p, seed=seed)
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
