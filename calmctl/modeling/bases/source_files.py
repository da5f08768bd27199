"""Check the files of a model before loading: none is empty, a placeholder, cut off or missing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from calmctl.environment import installed_version
from calmctl.errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
# Files of tokenizers that are rare, and never alone beside a model that has none.
OTHER_TOKENIZERS = ("*.model", "*.tiktoken", "tekken.json", "tokenization_*.py")
# Besides the weights, the files that decide what a model reads, computes and generates.
IDENTITY_FILES = (
    *TOKENIZER_FILES, "merges.txt", "special_tokens_map.json", "config.json", "generation_config.json",
    "adapter_config.json",
)  # fmt: skip
WEIGHT_SUFFIXES = (".safetensors", ".bin")
# GGUF files are recognised by name or by their first bytes.
GGUF_SUFFIX, GGUF_START = ".gguf", b"GGUF"
ADAPTER_FILE = "adapter_config.json"
# Weight files, in the order in which transformers and peft look for them.
WEIGHT_FILES = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
ADAPTER_WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# Files that must hold a JSON object; tokenizer.json is large, so it is checked only after loading has failed.
SETTINGS_FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", ADAPTER_FILE,
)  # fmt: skip
# Start of the placeholder that Git leaves for a large file that was not fetched.
PLACEHOLDER = b"version https://git-lfs"
LONGEST_REASON = 300


def check_files(folder: Path, *, with_weights: bool = False) -> None:
    """Refuse a folder in which a file that loading would read is damaged or missing.

    Args:
        with_weights: weights are to be loaded too.

    Raises:
        UserError: a file is empty, a Git LFS placeholder, not JSON or cut off; an index names a missing file; or the
            folder holds only GGUF files, each of which is a model.
    """
    expected = (*WEIGHT_FILES, ADAPTER_FILE) if with_weights else (*WEIGHT_FILES, *IDENTITY_FILES)
    packed = sorted(file.name for file in folder.glob(f"*{GGUF_SUFFIX}"))
    if packed and not any((folder / name).exists() for name in expected):
        raise UserError(f"{folder}: holds GGUF files; give the one that is meant, such as {packed[0]}")
    for name in IDENTITY_FILES:
        if (folder / name).exists():
            check_content(folder / name)
    for name in SETTINGS_FILES:
        if (folder / name).exists():
            read_settings(folder / name)
    for names in (WEIGHT_FILES, ADAPTER_WEIGHT_FILES):
        if file := next((folder / name for name in names if (folder / name).exists()), None):
            for weights in _files_of_weights(file):
                _check_weights(weights)


def read_settings(file: Path) -> dict[str, Any]:
    """Read a file of settings: one JSON object.

    Raises:
        UserError: it is empty, a placeholder or no JSON object.
    """
    check_content(file)
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: damaged, it is not JSON ({error}); fetch it again") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file}: damaged, it holds no JSON object; fetch it again")
    return settings


def is_gguf(file: Path) -> bool:
    """Tell whether a path is a GGUF file, by its name or its first bytes (caches and stores name files by hashes)."""
    if not file.is_file():
        return False
    if file.suffix == GGUF_SUFFIX:
        return True
    try:
        with file.open("rb") as stream:
            return stream.read(len(GGUF_START)) == GGUF_START
    except PermissionError:
        return False


def has_weights(folder: Path) -> bool:
    """Tell whether a folder holds the weights of a whole model."""
    return any((folder / name).exists() for name in WEIGHT_FILES)


def _files_of_weights(file: Path) -> Iterator[Path]:
    """Yield a file of weights, or for an index the files that it names."""
    if file.suffix != ".json":
        yield file
        return
    names = read_settings(file).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{file}: damaged, it does not say in which file a weight is (weight_map); fetch it again")
    for name in sorted(set(names.values())):
        if not (file.parent / name).exists():
            raise UserError(f"{file}: {name}, which it names, is missing; fetch it")
        yield file.parent / name


def check_content(file: Path) -> None:
    """Refuse a path that is no file, an empty file, or a Git LFS placeholder.

    Raises:
        UserError: it is one.
    """
    if not file.is_file():
        raise UserError(f"{file}: not a file")
    with file.open("rb") as stream:
        start = stream.read(len(PLACEHOLDER))
    if not start:
        raise UserError(f"{file}: empty; fetch it again")
    if start == PLACEHOLDER:
        raise UserError(f"{file}: a Git LFS placeholder instead of the file; fetch it with `git lfs pull`")


def _check_weights(file: Path) -> None:
    check_content(file)
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: the checkpoint is damaged or cut off ({error}); fetch it again") from error


def unloadable(what: str, source: str, error: Exception) -> UserError:
    """Return the error that says in one line why something cannot be loaded.

    Whatever the libraries raised, the file that the user named is at fault.
    """
    if isinstance(error, UserError):
        return UserError(str(error))  # a copy, as the caller raises it from the original
    text = _first_sentence(str(error))
    if "trust_remote_code" in str(error):
        reason = "it needs code that lies beside it; read that code, then give --trust-remote-code to run it"
    elif found := re.match(r"Unrecognized configuration class <class '[\w.]*?(\w+)'>", text):
        reason = f"a {found[1]} describes none"
    elif isinstance(error, ImportError):
        reason = f"a package is missing ({text})"
    elif isinstance(error, UnpicklingError):
        reason = "its pickled file holds more than tensors, and code in it is never run; store it as safetensors"
    elif "couldn't connect" in text:
        reason = "there is no such folder, and the hub cannot be reached (nor is it among what was fetched before)"
    elif isinstance(error, KeyError):
        reason = f"its config.json says {text}, which transformers {installed_version('transformers')} does not know"
    elif type(error) is Exception:
        # The tokenizers library raises bare `Exception`.
        reason = f"{text} (damaged, or of a newer version than is installed)"
    elif isinstance(error, OSError | ValueError) and text:
        reason = text
    else:
        reason = f"{type(error).__name__}: {text}"
    return UserError(f"cannot load {what} from {source!r}: {reason}")


def _first_sentence(text: str) -> str:
    """Return the first line with text, and the next ones while a line ends with a colon."""
    found = ""
    for line in filter(None, (" ".join(line.split()) for line in text.splitlines())):
        found = f"{found} {line}".strip()
        if not found.endswith(":"):
            break
    return found[:LONGEST_REASON]
