"""Export a model: a folder to keep, move or upload, with its tokenizer, its card, and on request its bases."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import locate
from calmctl.modeling.bases.sources import SOURCE_ARGUMENTS, base_config, load_model, load_tokenizer
from calmctl.modeling.configuration import ComposedConfig, PartsConfig
from calmctl.modeling.stored.card import CARD_FILE, write_card, write_plain_card
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.stored.stored_tokenizer import store_tokenizer
from data_builders.files import share_as_umask_says, sync_folder, sync_tree


def export_model(
    source: str,
    out: Path,
    *,
    merge_bases: bool = False,
    merge: bool = False,
    anchor: str = "",
    augs: Sequence[str] = (),
    allow_different_base: bool = False,
    name: str = "",
    **arguments: Any,
) -> PreTrainedModel:
    """Write a stored model into a new folder, as a whole or not at all; return it.

    The trained parts are written without the bases, which the folder names by hub id or relative path.

    Args:
        source: run, model folder or hub id.
        out: a folder that is new or empty.
        merge_bases: write the bases of a composition too, which makes the folder self-contained.
        merge: add adapters to the weights of their model (LoRA), which makes it a plain one.
        anchor, augs, allow_different_base: see `load_model`.
        name: id on the hub, for the card; empty = a local folder.
        arguments: of `from_pretrained` of models and tokenizers (trust_remote_code, local_files_only, ...).

    Raises:
        UserError: there is no such model, it cannot be merged, a base is missing or another one, or `out` is not empty.
    """
    reach = {key: value for key, value in arguments.items() if key in SOURCE_ARGUMENTS}
    _check_merging(source, base_config(source, **reach), merge_bases, merge)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: {'holds files' if out.is_dir() else 'is a file'}; choose a new or an empty folder")
    out = Path(os.path.realpath(out))  # what a link points to is replaced, not the link
    tokenizer = load_tokenizer(source, **reach)
    model = load_model(source, anchor=anchor, augs=augs, allow_different_base=allow_different_base, **arguments)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        unfinished.mkdir()
        if isinstance(model, PartsModel) and not merge:
            card = Path(locate(source)[0]) / CARD_FILE
            if card.is_file():  # kept if somebody has edited it
                shutil.copyfile(card, unfinished / CARD_FILE)
            model.save_pretrained(unfinished, merge_bases=merge_bases)
            write_card(model, unfinished, name or out.name, name)
        elif isinstance(model, PartsModel):
            model.save_pretrained(unfinished, merge_bases=True)
            write_plain_card(model, unfinished, name or out.name, name)
        else:
            model.save_pretrained(unfinished)
        store_tokenizer(tokenizer, unfinished)
        share_as_umask_says(unfinished)
        sync_tree(unfinished)
        os.replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(out.parent)
    return model


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the files below a folder by relative path, with their sizes in bytes."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def _check_merging(source: str, config: Any, merge_bases: bool, merge: bool) -> None:
    """Raise UserError for an option that does not go with the kind of a model."""
    if isinstance(config, ComposedConfig):
        if merge:
            raise UserError(f"{source}: a composition cannot become a plain model; --merge-bases writes its bases too")
    elif isinstance(config, PartsConfig):
        if merge_bases:
            raise UserError(f"{source}: adapters in a frozen model; --merge adds them to its weights (lora)")
    elif merge or merge_bases:
        option = "--merge" if merge else "--merge-bases"
        raise UserError(f"{source}: a plain model, which is whole as it is; leave {option} out")
