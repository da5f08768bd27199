"""Publish a model stored in parts on the hub."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from calmctl.errors import UserError
from calmctl.modeling.stored.card import CARD_FILE, write_card
from calmctl.modeling.stored.parts import PartsModel


def push_parts(
    model: PartsModel,
    repo_id: str,
    *,
    merge_bases: bool = False,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a model and return the commit's URL. A card that was edited on the hub stays.

    Raises:
        UserError: a base is neither on the hub nor merged, so nobody else could load the model.
    """
    if not merge_bases:
        _require_bases_on_the_hub(model)
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision and not revision.startswith("refs/pr"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    with TemporaryDirectory() as folder:
        if api.file_exists(repo_id, CARD_FILE, revision=revision):
            api.hf_hub_download(repo_id, CARD_FILE, revision=revision, local_dir=folder)
        model.save_pretrained(folder, merge_bases=merge_bases)
        write_card(model, Path(folder), repo_id)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message or "Upload model",
            commit_description=commit_description,
            revision=revision,
            create_pr=create_pr,
        )


def _require_bases_on_the_hub(model: PartsModel) -> None:
    roles = ["anchor", *(f"aug {index}" for index in range(len(model.augs)))]
    for role, base in zip(roles, model.bases(), strict=True):
        name = base.config._name_or_path
        if role != "anchor" and model.config.aug_seed is not None:
            continue
        if not name or os.path.isdir(name) or os.path.isabs(name):
            place = f"the {'file' if os.path.isfile(name) else 'folder'} {name!r}" if name else "in memory only"
            raise UserError(
                f"push_to_hub: the {role} is {place}, where nobody else can load it from; push it first and compose "
                "from its hub id, or upload the bases too with merge_bases=True"
            )
