"""Locate models: what a user's name means (a run, folder, file or hub id), and which model an adapter is for.

Loads without torch or transformers, so that a wrong path is reported at once.
"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calmctl.errors import UserError
from calmctl.modeling.bases.source_files import (
    ADAPTER_FILE,
    GGUF_SUFFIX,
    IDENTITY_FILES,
    TOKENIZER_FILES,
    WEIGHT_SUFFIXES,
    has_weights,
    is_gguf,
    read_settings,
)
from data_builders.files import sha256_of
from data_builders.hub import be_offline_without_network

# The folder of a run with the model that it made.
MODEL_FOLDER = "model"
# Hub arguments of `from_pretrained`.
HUB_ARGUMENTS = ("token", "cache_dir", "local_files_only", "force_download")
# For optional files: neither a missing file nor a missing network is an error.
_OPTIONAL = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}


def locate(source: str) -> tuple[str, str]:
    """Return the folder, GGUF file or hub id that a user's name means, and the revision.

    A run directory means the model it made; `id@revision` a revision on the hub. What would lie in a folder that exists
    here is meant as a path, unless it has a revision.

    Raises:
        UserError: a run that has no model yet, a file that is no GGUF file, or a path that does not exist.
    """
    path = Path(source)
    if not path.exists():
        if source.partition("@")[0].endswith(GGUF_SUFFIX):
            raise UserError(f"{source}: no such file; `hf download OWNER/NAME FILE` fetches one and prints its path")
        if path.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
            raise UserError(f"{source}: no such folder (a hub id has the form name, or owner/name)")
        name, _, revision = source.partition("@")
        if not revision and _would_lie_here(name):
            raise UserError(f"{source}: no such folder in {path.parent}; if the hub is meant, write {source}@main")
        return name, revision or "main"
    if (path / MODEL_FOLDER / "config.json").is_file():
        return str(path / MODEL_FOLDER), "main"
    if (path / "run.json").is_file():
        raise UserError(f"{source}: this run has no model (yet); see `calmctl show {shlex.quote(source)}`")
    if not path.is_dir() and not is_gguf(path):
        raise UserError(f"{source}: a file (no GGUF file); give the folder of the model that it is part of")
    return source, "main"


def _would_lie_here(name: str) -> bool:
    """Tell whether `name` has two parts, the first of which is a folder in the working directory."""
    parent, _, rest = name.partition("/")
    return bool(rest) and Path(parent).is_dir()


def place_of(name: str) -> Path | None:
    """Return the absolute path of a local folder or GGUF file; None for any other name, such as a hub id."""
    path = Path(name)
    if is_gguf(path):
        return path.parent.resolve() / path.name  # keeps the name that a cache links to a hash
    return path.resolve() if path.is_dir() else None


def name_of(place: str) -> str:
    """Return the name of a local model without its path; that of a run, whose model is in its folder `model`."""
    path = Path(place)
    return path.parent.name if path.name == MODEL_FOLDER else path.name


def commit_of(name: str, revision: str, arguments: dict[str, Any]) -> str | None:
    """Return the commit that a hub revision means now, to load all files from it and record it; None = a local path."""
    if Path(name).exists():
        return None
    from transformers.utils.hub import extract_commit_hash

    file = hub_file(name, "config.json", revision, arguments, _raise_exceptions_for_missing_entries=False)
    return extract_commit_hash(file, None)


def adapted_model(source: str, **arguments: Any) -> str | None:
    """Return the source of the model that an adapter of peft is for; None if the source is no adapter.

    A relative path counts from the adapter's folder, then from the working directory.

    Raises:
        UserError: the adapter names no model or a missing one, or its folder holds a whole model as well.
    """
    name, revision = locate(source)
    folder = Path(name)
    if is_gguf(folder):
        return None
    if folder.is_dir():
        if not (folder / ADAPTER_FILE).exists():
            return None
        if has_weights(folder):
            raise UserError(f"{source}: holds a model and an adapter; remove {ADAPTER_FILE}, or merge it with peft")
        file = folder / ADAPTER_FILE
    else:
        try:
            found = hub_file(name, ADAPTER_FILE, revision, arguments, **_OPTIONAL)
        except (OSError, ValueError):
            return None  # loading comes next and reports the error
        if found is None:
            return None
        file = Path(found)
    settings = read_settings(file)
    base = settings.get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise UserError(f"{file}: it does not name the model that the adapter is for (base_model_name_or_path)")
    if (place := place_of(str(folder / base))) is not None:
        return str(place)
    if not Path(base).exists() and (Path(base).is_absolute() or base.startswith(".")):
        raise UserError(f"{source}: the model that this adapter is for, {base}, is not there")
    # A folder that has the name of an id's owner says nothing: the adapter is not from here.
    revision = settings.get("revision") or ("main" if _would_lie_here(base) else "")
    return f"{base}@{revision}" if revision and not Path(base).exists() else base


def whole_model(source: str, **arguments: Any) -> str:
    """Return the source itself, or for an adapter the model that it is for, through adapters of adapters.

    Raises:
        UserError: the adapters are for each other.
    """
    seen = [source]
    while (base := adapted_model(seen[-1], **arguments)) is not None:
        places = [locate(each) for each in seen]
        if (base if not Path(base).exists() else str(Path(locate(base)[0]).resolve())) in {
            place if not Path(place).exists() else str(Path(place).resolve()) for place, _ in places
        }:
            raise UserError(f"{source}: an adapter that is, in the end, for itself; correct {ADAPTER_FILE}")
        seen.append(base)
    return seen[-1]


def source_sha256(source: str) -> str:
    """Return what identifies a model and its tokenizer: a hash of local files, or the hub id.

    For an adapter this covers its model too.
    """
    name, _ = locate(source) if source else ("", "")
    place = place_of(name) if name else None
    if place is None:
        return source
    if is_gguf(place):
        return sha256_of(place)[:16]
    files = [file for file in place.iterdir() if file.suffix in WEIGHT_SUFFIXES or file.name in IDENTITY_FILES]
    found = ",".join(sha256_of(file)[:16] for file in sorted(files))
    base = whole_model(source)
    return found if base == source else f"{found}+{source_sha256(base)}"


def has_tokenizer(source: str, **arguments: Any) -> bool:
    """Tell whether a path, run or hub id has a tokenizer.

    Raises:
        UserError: a GGUF file cannot be read.
    """
    from calmctl.modeling.bases.gguf_files import has_gguf_tokenizer

    name, revision = locate(source)
    if is_gguf(Path(name)):
        return has_gguf_tokenizer(Path(name))
    if Path(name).is_dir():
        return any((Path(name) / file).exists() for file in TOKENIZER_FILES)
    return any(hub_file(name, file, revision, arguments, **_OPTIONAL) for file in TOKENIZER_FILES)


def hub_file(name: str, file: str, revision: str, arguments: Mapping[str, Any], **how: bool) -> str | None:
    """Return the local path of a file of a hub repository; fetches it if necessary.

    All loading from the hub begins with one of these files.

    Args:
        arguments: hub arguments of `from_pretrained`; others are left out. `how`: further ones of `cached_file`.

    Raises:
        OSError: the hub cannot be reached, or there is no such repository or file.
    """
    from transformers.utils import cached_file

    be_offline_without_network()
    return cached_file(name, file, revision=revision, **how, **hub_arguments(arguments))


@contextmanager
def without_network(is_wanted: bool = True) -> Iterator[None]:
    """Read nothing but the cache of the hub in the block; `local_files_only` does not reach all of transformers."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or is_wanted
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def hub_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return only the hub arguments among arguments of `from_pretrained`."""
    return {name: arguments[name] for name in HUB_ARGUMENTS if name in arguments}
