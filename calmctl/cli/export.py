"""`calmctl export`: write a trained model as a folder to keep, move or share."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.loading import loading
from calmctl.units import human_bytes

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run, model folder or hub id.")]
MergeBases = Annotated[
    bool, typer.Option("--merge-bases", help="Write the bases of a composition too: a self-contained folder.")
]
Merge = Annotated[
    bool, typer.Option("--merge", help="Add adapters to the weights of their model (lora): a plain model.")
]


def export(
    model: Model,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    merge_bases: MergeBases = False,
    merge: Merge = False,
    anchor: options.AnchorElsewhere = None,
    aug: options.AugsElsewhere = None,
    allow_different_base: options.AllowDifferentBase = False,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.Json = False,
) -> None:
    """Write a trained model into a folder with its tokenizer and card: the trained parts, or a self-contained model."""
    with loading():
        from calmctl.modeling.bases.sources import quiet_libraries
        from calmctl.modeling.stored.export import export_model, sizes_of

    quiet_libraries()
    export_model(
        model, out, merge_bases=merge_bases, merge=merge, anchor=anchor or "", augs=aug or (),
        allow_different_base=allow_different_base, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    sizes = sizes_of(out)
    if json:
        output.print_json({"path": str(out), "files": sizes, "bytes": sum(sizes.values())})
        return
    print_files(sizes)
    output.print_facts({"model": out, "use": f'calmctl generate "a prompt" --model {quote(str(out))}'})


def print_files(sizes: dict[str, int]) -> None:
    """Print files with their sizes, and the sum."""
    rows = [*sizes.items(), ("in all", sum(sizes.values()))]
    output.print_table(["file", "size"], [(name, human_bytes(size)) for name, size in rows], numbers=[1])
