"""Sources: what a user's name for a model means (a run, a folder, a hub id), and loading from there."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import extract_commit_hash

from calmctl.errors import UserError
from calmctl.files import sha256_of
from calmctl.modeling.configuration import PartsConfig
from calmctl.modeling.placement import check_placement, convert

WEIGHT_SUFFIXES = (".safetensors", ".bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
# What a model computes follows from these and its weights; what it writes, from its tokenizer too.
IDENTITY_FILES = (*TOKENIZER_FILES, "merges.txt", "special_tokens_map.json", "config.json", "generation_config.json")
# Arguments of `from_pretrained` that say how to reach the hub.
HUB_ARGUMENTS = ("token", "cache_dir", "local_files_only", "force_download")


def load_base(model: PreTrainedModel | str | Path, **arguments: Any) -> PreTrainedModel:
    """Return a causal LM from a path or hub id (`id@revision`), or the model itself.

    A model from the hub has the commit it was loaded from in its configuration (`_commit_hash`).

    Raises:
        UserError: nothing that can be loaded is there.
    """
    if isinstance(model, PreTrainedModel):
        return model
    name, revision = locate(str(model))
    if Path(name).is_dir():
        # The name is recorded in checkpoints; it has to mean the same from another working directory.
        name = str(Path(name).resolve())
    arguments.setdefault("dtype", "auto")
    check_placement(arguments["dtype"], arguments.get("device_map"))
    try:
        commit = _commit(name, revision, arguments)
        loaded = AutoModelForCausalLM.from_pretrained(name, revision=commit or revision, **arguments)
        loaded.config._commit_hash = commit
        return loaded
    except (OSError, SafetensorError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"cannot load a causal language model from {str(model)!r}: {reason}") from error


def without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a causal LM of this configuration whose parameters have shapes but no values.

    Raises:
        UserError: the configuration is not that of a causal LM.
    """
    with torch.device("meta"):
        try:
            return AutoModelForCausalLM.from_config(config)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{type(config).__name__} describes no causal language model: {reason}") from error


def untrained(config: PreTrainedConfig, seed: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a model of a configuration with the random weights that a seed gives, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    convert(model, dtype)
    return model


def load_model(source: str, *, allow_different_base: bool = False) -> PreTrainedModel:
    """Load a plain, composed or adapted model of a path, run or hub id.

    Raises:
        UserError: there is none, a base is not the recorded one, or a plain model was told to allow different bases.
    """
    if not allow_different_base:
        return load_base(source)
    if not isinstance(base_config(source), PartsConfig):
        raise UserError(f"{source!r} is a plain model: it has no frozen bases that --allow-different-base could mean")
    return load_base(source, allow_different_base=True)


def _commit(name: str, revision: str, arguments: dict[str, Any]) -> str | None:
    """Return the commit that a revision on the hub means now, so that all files come from it and it can be recorded."""
    if Path(name).is_dir():
        return None
    hub = {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}
    file = cached_file(name, "config.json", revision=revision, _raise_exceptions_for_missing_entries=False, **hub)
    return extract_commit_hash(file, None)


def quiet_libraries() -> None:
    """Silence the libraries' own progress bars: runs report their progress themselves."""
    transformers_logging.disable_progress_bar()


def locate(source: str) -> tuple[str, str]:
    """Return the folder or hub id, and the revision, that a user's name for a model means.

    A run directory means the model it made; `id@revision` a revision on the hub.

    Raises:
        UserError: a run that has not made its model yet.
    """
    path = Path(source)
    if not path.exists():
        name, _, revision = source.partition("@")
        return name, revision or "main"
    if (path / "model" / "config.json").is_file():
        return str(path / "model"), "main"
    if (path / "run.json").is_file():
        raise UserError(f"{source}: this run has no model (yet); see `calmctl show {source}`")
    return source, "main"


def base_config(source: str, **arguments: Any) -> PreTrainedConfig:
    """Load the configuration of a path, run or hub id.

    Raises:
        UserError: there is none.
    """
    return _load(AutoConfig, "a model configuration", source, **arguments)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a path, run directory or hub id (`id@revision`).

    Raises:
        UserError: there is none.
    """
    return _load(AutoTokenizer, "a tokenizer", source)


def find_tokenizer(source: str, **arguments: Any) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of a path, run or hub id; None where a folder or repository has no file of one.

    Raises:
        UserError: there is one, but it cannot be loaded.
    """
    name, revision = locate(source)
    if Path(name).is_dir():
        found = any((Path(name) / file).is_file() for file in TOKENIZER_FILES)
    else:
        hub = {key: arguments[key] for key in HUB_ARGUMENTS if key in arguments}
        missing_is_fine = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        found = any(cached_file(name, file, revision=revision, **missing_is_fine, **hub) for file in TOKENIZER_FILES)
    return _load(AutoTokenizer, "a tokenizer", source, **arguments) if found else None


def _load(auto_class: Any, what: str, source: str, **arguments: Any) -> Any:
    name, revision = locate(source)
    try:
        return auto_class.from_pretrained(name, revision=revision, **arguments)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot load {what} from {source!r}: {reason}") from error


def source_sha256(source: str) -> str:
    """Return what identifies a model and its tokenizer, given as a path, run or hub id: a hash of files, or the id."""
    name, _ = locate(source) if source else ("", "")
    if not name or not Path(name).is_dir():
        return source
    files = [file for file in Path(name).iterdir() if file.suffix in WEIGHT_SUFFIXES or file.name in IDENTITY_FILES]
    return ",".join(sha256_of(file)[:16] for file in sorted(files))
