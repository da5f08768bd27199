"""Publish models on the hub."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from calmctl.errors import CalmctlError, UserError
from calmctl.modeling.bases.locating import without_network
from calmctl.modeling.stored.card import CARD_FILE, is_edited, write_card
from calmctl.modeling.stored.export import export_model
from calmctl.modeling.stored.parts import PartsModel


@contextmanager
def saved_for_upload(model: PartsModel, repo_id: str, merge_bases: bool) -> Iterator[Path]:
    """Yield a temporary folder with what an upload of a model holds.

    Raises:
        UserError: a base is neither on the hub nor merged, so nobody else could load the model.
    """
    if not merge_bases:
        _require_bases_on_the_hub(model)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder, merge_bases=merge_bases)
        write_card(model, Path(folder), repo_id, repo_id)
        yield Path(folder)


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a folder and return the commit's URL. A card that was edited on the hub stays."""
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    if api.file_exists(repo_id, CARD_FILE, revision=revision):
        with TemporaryDirectory() as there:
            card = Path(api.hf_hub_download(repo_id, CARD_FILE, revision=revision, local_dir=there))
            if is_edited(card):
                shutil.copyfile(card, folder / CARD_FILE)
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        commit_message=commit_message or "Upload model",
        commit_description=commit_description,
        revision=revision,
        create_pr=create_pr,
    )


@contextmanager
def prepared_upload(
    source: str, repo_id: str, *, merge_bases: bool, merge: bool, is_offline: bool = False, **how: Any
) -> Iterator[Path]:
    """Yield a temporary folder with what an upload of a stored model would hold.

    Args:
        is_offline: use no network, only the cache of the hub.
        how: see `export_model`.

    Raises:
        UserError: see `export_model`; the id is no id of the hub; or a base is neither on the hub nor merged.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id!r}: no id of the hub, which has the form OWNER/NAME ({error})") from error
    with TemporaryDirectory() as folder:
        out = Path(folder) / "upload"
        with without_network(is_offline):
            model = export_model(source, out, merge_bases=merge_bases, merge=merge, name=repo_id, **how)
        if isinstance(model, PartsModel) and not (merge_bases or merge):
            _require_bases_on_the_hub(model)
        yield out


def push_prepared(folder: Path, repo_id: str, private: bool, revision: str | None, create_pr: bool) -> str:
    """Upload a prepared folder and return the commit's URL.

    Raises:
        CalmctlError: the hub cannot be reached, or refuses.
    """
    try:
        return push_folder(folder, repo_id, private=private or None, revision=revision, create_pr=create_pr)
    except Exception as error:  # of several libraries: no network, no login, no right to write
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise CalmctlError(f"cannot upload to {repo_id}: {reason}") from error


def _require_bases_on_the_hub(model: PartsModel) -> None:
    roles = ["anchor", *(f"aug {index}" for index in range(len(model.augs)))]
    for role, base in zip(roles, model.bases(), strict=True):
        name = base.config._name_or_path
        if role != "anchor" and model.config.aug_seed is not None:
            continue
        if not name or os.path.isdir(name) or os.path.isabs(name):
            place = f"the {'file' if os.path.isfile(name) else 'folder'} {name!r}" if name else "in memory only"
            raise UserError(
                f"push_to_hub: the {role} is {place}, where nobody else can load it from; push it first and name its "
                "hub id (--anchor ID --aug ID; in Python compose from it), or upload the bases too (--merge-bases; "
                "merge_bases=True)"
            )
