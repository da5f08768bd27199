"""`calmctl push`: upload a trained model to the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from calmctl.cli import options, output
from calmctl.cli.export import Merge, MergeBases, Model, print_files
from calmctl.cli.loading import loading
from calmctl.escaping import visible


def push(
    model: Model,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the hub; it is made if need be.")],
    merge_bases: MergeBases = False,
    merge: Merge = False,
    anchor: options.AnchorElsewhere = None,
    aug: options.AugsElsewhere = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to upload to.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    trust_remote_code: options.TrustRemoteCode = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print files, sizes and the card; use no network and upload nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Upload a trained model with its tokenizer and card to the hub, without its bases if these are there."""
    with loading():
        from calmctl.modeling.bases.sources import quiet_libraries
        from calmctl.modeling.stored.card import CARD_FILE
        from calmctl.modeling.stored.export import sizes_of
        from calmctl.modeling.stored.hub import prepared_upload, push_prepared

    quiet_libraries()
    with prepared_upload(
        model, repo_id, merge_bases=merge_bases, merge=merge, anchor=anchor or "", augs=aug or (),
        trust_remote_code=trust_remote_code, is_offline=dry_run,
    ) as folder:  # fmt: skip
        sizes, card = sizes_of(folder), folder / CARD_FILE
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        url = None if dry_run else push_prepared(folder, repo_id, private, revision, create_pr)
    if json:
        output.print_json({"repo_id": repo_id, "url": url, "files": sizes, "bytes": sum(sizes.values()), "card": text})
        return
    print_files(sizes)
    print(url if url else visible(f"{text}\nnothing was uploaded (--dry-run)"))
