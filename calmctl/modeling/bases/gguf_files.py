"""GGUF files: model and tokenizer in one file, whose weights transformers unpacks on loading."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)
from transformers.integrations.gguf import read_gguf_metadata
from transformers.utils import is_gguf_available
from transformers.utils import logging as transformers_logging

from calmctl.errors import UserError
from calmctl.modeling.bases.source_files import check_content, unloadable

# Oldest supported version of the package gguf, as in pyproject.toml.
OLDEST = "0.13"


def unpacked(
    auto_class: Any, what: str, file: Path, config: PreTrainedConfig, arguments: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load the model of a GGUF file with unpacked weights; return it and transformers' loading report.

    Args:
        auto_class, what: the Auto class of transformers to load with, and what it loads, in words.
        config: configuration in the file.
        arguments: of `from_pretrained`; without a `dtype`, weights are unpacked to float32, however they are packed.

    Raises:
        UserError: it cannot be loaded, or is to be quantised again.
    """
    if arguments.get("quantization_config") is not None:
        raise UserError(f"{file}: a GGUF file is unpacked when it is loaded; give quantization_config with a folder")
    how = {**arguments, "dtype": torch.float32} if arguments.get("dtype") in (None, "auto") else arguments
    loaded, report = _from_pretrained(
        auto_class, what, file, config=config, quantization_config=GgufConfig(dequantize=True),
        output_loading_info=True, ignore_mismatched_sizes=True, **how,
    )  # fmt: skip
    loaded.name_or_path = loaded.config._name_or_path = str(file)
    return loaded, report


def read_gguf(auto_class: Any, what: str, file: Path) -> Any:
    """Return the configuration or tokenizer in a GGUF file, as a copy that the caller may change.

    Args:
        auto_class, what: the Auto class of transformers to load with, and what it loads, in words.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    check_gguf(file)
    state = file.stat()
    return copy.deepcopy(_read_once(auto_class, what, file, (state.st_mtime_ns, state.st_size)))


# Reading a large vocabulary takes seconds, and every command does so several times.
@lru_cache(maxsize=8)
def _read_once(auto_class: Any, what: str, file: Path, _state: tuple[int, int]) -> Any:
    found = _from_pretrained(auto_class, what, file)
    found.name_or_path = str(file)
    if isinstance(found, PreTrainedTokenizerBase):
        _drop_foreign_tokens(found, _metadata(file)["tokenizer.ggml.tokens"])
    return found


def _drop_foreign_tokens(tokenizer: PreTrainedTokenizerBase, count: int) -> None:
    """Remove tokens that the tokenizer's class adds to the file's `count` tokens: the model has no such ids."""
    if all(token_id < count for token_id in tokenizer.get_added_vocab().values()):
        return
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["id"] < count]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(backend))
    known = tokenizer.get_vocab()
    for name, token in tokenizer.special_tokens_map.items():
        if isinstance(token, str) and token not in known:
            setattr(tokenizer, name, None)


def check_gguf(file: Path) -> None:
    """Refuse a file that is no GGUF file or a part of a split one, and any if the package gguf is missing.

    Raises:
        UserError: see above.
    """
    metadata = _metadata(file)
    if metadata.get("split.count", 0) > 1:
        raise UserError(
            f"{file}: one of the {metadata['split.count']} parts of a model; join them with `llama-gguf-split --merge`"
        )
    if not is_gguf_available(OLDEST):
        raise UserError(f"{file}: a GGUF file needs the package gguf, {OLDEST} or newer: pip install 'calmctl[gguf]'")


def has_gguf_tokenizer(file: Path) -> bool:
    """Tell whether a GGUF file contains a tokenizer.

    Raises:
        UserError: the file cannot be read.
    """
    return "tokenizer.ggml.tokens" in _metadata(file)


def _metadata(file: Path) -> dict[str, Any]:
    """Return the metadata of a GGUF file; long lists are given by their length."""
    check_content(file)
    try:
        return read_gguf_metadata(str(file))[0]
    except Exception as error:  # lengths and offsets in a damaged file can cause any error
        raise UserError(f"{file}: no GGUF file, or damaged or cut off ({error}); fetch it again") from error


def _from_pretrained(auto_class: Any, what: str, file: Path, **arguments: Any) -> Any:
    """Load something from a GGUF file with a class of transformers, without regard to other files in its folder."""
    try:
        with TemporaryDirectory() as nothing, _bars_as_elsewhere():
            return auto_class.from_pretrained(nothing, gguf_file=str(file), **arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        _check_whole(file)
        raise unloadable(what, str(file), error) from error


def _check_whole(file: Path) -> None:
    """Refuse a file without all the data that its header announces."""
    from gguf import GGUFReader

    try:
        GGUFReader(file)
    except Exception as error:
        raise UserError(
            f"{file}: damaged or cut off, or newer than the package gguf that is installed ({error}); fetch it again"
        ) from error


@contextmanager
def _bars_as_elsewhere() -> Iterator[None]:
    """Show the progress bar of unpacking only if transformers shows its others."""
    original = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = transformers_logging.tqdm
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = original
