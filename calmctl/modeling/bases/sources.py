"""Sources: the one way in for models, configurations and tokenizers, given as a run, a path, a hub id or themselves.

What is loaded is what is there; anything else is refused in one line.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.quantizers.auto import AutoHfQuantizer, get_hf_quantizer
from transformers.utils import logging as transformers_logging

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bases.adapters import with_adapter
from calmctl.modeling.bases.gguf_files import read_gguf, unpacked
from calmctl.modeling.bases.given_models import checked_object
from calmctl.modeling.bases.loading_report import check_numbers, check_report, without_report
from calmctl.modeling.bases.locating import (
    HUB_ARGUMENTS,
    adapted_model,
    commit_of,
    has_tokenizer,
    locate,
    place_of,
    whole_model,
)
from calmctl.modeling.bases.source_files import (
    IDENTITY_FILES,
    WEIGHT_SUFFIXES,
    check_files,
    is_gguf,
    read_settings,
    unloadable,
)
from calmctl.modeling.configuration import PartsConfig
from calmctl.modeling.placement import check_placement, convert
from data_builders.files import sha256_of

# Arguments that configurations and tokenizers take like weights do.
SOURCE_ARGUMENTS = (*HUB_ARGUMENTS, "trust_remote_code")
WHAT, CONFIGURATION = "a causal language model", "a model configuration"


def load_base(model: PreTrainedModel | str | Path, **arguments: Any) -> PreTrainedModel:
    """Return a causal LM from a path or hub id (`id@revision`), or the model itself.

    A model from the hub has the commit it was loaded from in its configuration (`_commit_hash`). An adapter, as peft
    stores them, means its model with the adapter merged into it.

    Raises:
        UserError: nothing that can be loaded is there; its weights are not exactly those of the model that its
            configuration describes, or are no numbers; or it needs code of its own that is not trusted.
    """
    if not isinstance(model, str | Path):
        return checked_object(model)
    source = str(model)
    name, revision = locate(source)
    if Path(name).is_dir():
        check_files(Path(name), with_weights=not arguments.get("subfolder"))
    # The name is recorded in checkpoints; it has to mean the same from another working directory.
    name = str(place_of(name) or name)
    arguments.setdefault("dtype", "auto")
    # Never None: transformers would ask on standard input whether to run a repository's code.
    arguments["trust_remote_code"] = bool(arguments.get("trust_remote_code"))
    arguments.pop("ignore_mismatched_sizes", None)
    check_placement(arguments["dtype"], arguments.get("device_map"))
    if not arguments.get("subfolder") and (base := adapted_model(source, **arguments)) is not None:
        whole_model(source, **arguments)
        return with_adapter(load_base(base, **arguments), name, revision, arguments)
    try:
        commit = commit_of(name, revision, arguments)
        with without_report():
            loaded, report = _with_weights(name, commit or revision, arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise unloadable(WHAT, source, error) from error
    loaded.config._commit_hash = commit
    _check_quantization(loaded.config)
    known = {name: arguments[name] for name in SOURCE_ARGUMENTS if name in arguments}
    check_report(source, loaded, report, lambda: base_config(source, **known))
    check_numbers(source, loaded)
    return loaded


def _with_weights(name: str, revision: str, arguments: dict[str, Any]) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """Return a model, and what transformers reports of loading it."""
    if is_gguf(Path(name)):
        config = read_gguf(AutoConfig, CONFIGURATION, Path(name))
        return unpacked(AutoModelForCausalLM, WHAT, Path(name), config, arguments)
    found: Any = AutoModelForCausalLM.from_pretrained(
        name, revision=revision, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
    )
    return found


def load_model(source: str, *, allow_different_base: bool = False, trust_remote_code: bool = False) -> PreTrainedModel:
    """Load a plain, composed or adapted model of a path, run or hub id, to generate with.

    Raises:
        UserError: there is none, a base is not the recorded one, a plain model was told to allow different bases, or
            one that reads text in both directions.
    """
    how = {"trust_remote_code": trust_remote_code}
    if isinstance(base_config(source, **how), PartsConfig):
        return load_base(source, allow_different_base=allow_different_base, **how)
    return _checked_to_generate(load_base(source, **how), source, allow_different_base)


def model_without_weights(
    source: str, *, allow_different_base: bool = False, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Return what `load_model` would load, with parameters that have shapes but no values.

    Raises:
        UserError: what `load_model` would refuse before it reads weights, bases of a composed model aside.
    """
    how = {"trust_remote_code": trust_remote_code}
    config = base_config(source, **how)
    model = without_weights(config)
    if isinstance(config, PartsConfig):
        return model
    return _checked_to_generate(model, source, allow_different_base)


def _checked_to_generate(model: PreTrainedModel, source: str, allow_different_base: bool) -> PreTrainedModel:
    """Return a plain model that can generate."""
    if allow_different_base:
        raise UserError(f"{source!r} is a plain model: it has no frozen bases that --allow-different-base could mean")
    if reason := layers.reads_ahead(model):
        raise UserError(f"{source!r}, a {type(model).__name__}, cannot generate: {reason}")
    return model


def without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a causal LM of this configuration whose parameters have shapes but no values.

    Raises:
        UserError: the configuration is not that of a causal LM, or of one quantised in a way that cannot be loaded
            here.
    """
    _check_quantization(config)
    with torch.device("meta"):
        return _from_config(config)


def untrained(config: PreTrainedConfig, seed: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a model of a configuration with the random weights that a seed gives, whatever was drawn before.

    Raises:
        UserError: the configuration is not that of a causal LM.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _from_config(config, dtype=torch.float32)
    convert(model, dtype)
    return model


def _from_config(config: PreTrainedConfig, **arguments: Any) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_config(config, trust_remote_code=is_own_code(config), **arguments)
    except Exception as error:
        raise unloadable(WHAT, config._name_or_path or type(config).__name__, error) from error


def is_own_code(thing: object) -> bool:
    """Tell whether an object is of a class that came with a model: its code was trusted, and has been run."""
    return type(thing).__module__.startswith("transformers_modules.")


def _check_quantization(config: PreTrainedConfig) -> None:
    """Refuse a configuration of weights that are quantised in a way that is unknown or cannot run here.

    Raises:
        UserError: it is one: a package or a device is missing.
    """
    settings = getattr(config, "quantization_config", None)
    if not isinstance(settings, dict):
        return  # none, or an object, which is made of a known one only
    name = config._name_or_path or type(config).__name__
    if not AutoHfQuantizer.supports_quant_method(settings):
        method = settings.get("quant_method")
        raise UserError(f"{name}: quantised by {method!r}, which transformers {transformers.__version__} does not know")
    try:
        get_hf_quantizer(copy.deepcopy(config), None, None, True, {})
    except Exception as error:
        raise unloadable(WHAT, name, error) from error


def quiet_libraries() -> None:
    """Silence the libraries' own progress bars: runs report their progress themselves."""
    transformers_logging.disable_progress_bar()


def base_config(source: str, **arguments: Any) -> PreTrainedConfig:
    """Load the configuration of a path, run or hub id; that of an adapter is its model's.

    Raises:
        UserError: there is none.
    """
    return _load(AutoConfig, CONFIGURATION, whole_model(source, **arguments), **arguments)


def load_tokenizer(source: str, **arguments: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a path, run or hub id (`id@revision`); an adapter without one has its model's.

    Raises:
        UserError: there is none.
    """
    base = adapted_model(source, **arguments)
    if base is None:
        return _load(AutoTokenizer, "a tokenizer", source, **arguments)
    if not has_tokenizer(source, **arguments):
        return load_tokenizer(whole_model(source, **arguments), **arguments)
    # An adapter has no configuration, which says of some models how their tokenizers cut text.
    return _load(AutoTokenizer, "a tokenizer", source, config=base_config(source, **arguments), **arguments)


def find_tokenizer(source: str, **arguments: Any) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of a path, run or hub id; None where a folder or repository has no file of one.

    Raises:
        UserError: there is one, but it cannot be loaded.
    """
    if adapted_model(source, **arguments) is None and not has_tokenizer(source, **arguments):
        return None
    return load_tokenizer(source, **arguments)


def _load(auto_class: Any, what: str, source: str, **arguments: Any) -> Any:
    name, revision = locate(source)
    if (file := place_of(name)) is not None and is_gguf(file):
        return read_gguf(auto_class, what, file)
    if Path(name).is_dir():
        check_files(Path(name))
    # Never None: transformers would ask on standard input whether to run a repository's code.
    arguments["trust_remote_code"] = bool(arguments.get("trust_remote_code"))
    try:
        return auto_class.from_pretrained(name, revision=revision, **arguments)
    except Exception as error:
        if (Path(name) / "tokenizer.json").is_file():
            read_settings(Path(name) / "tokenizer.json")
        raise unloadable(what, source, error) from error


def source_sha256(source: str) -> str:
    """Return what identifies a model and its tokenizer, given as a path, run or hub id: a hash of files, or the id.

    Of an adapter both it and its model count.
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
