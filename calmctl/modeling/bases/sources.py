"""Load models, configurations and tokenizers from a run, path, hub id or object: all loading goes through here.

Weights must match their configuration exactly; all else is refused with a one-line error.
"""

import copy
from collections.abc import Mapping, Sequence
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
    OTHER_TOKENIZERS,
    check_files,
    is_gguf,
    read_settings,
    unloadable,
)
from calmctl.modeling.configuration import PartsConfig
from calmctl.modeling.placement import check_placement, convert
from calmctl.processes.garbage import without_collection

# Arguments for loading weights, configurations and tokenizers alike.
SOURCE_ARGUMENTS = (*HUB_ARGUMENTS, "trust_remote_code")
WHAT, CONFIGURATION = "a causal language model", "a model configuration"


def load_base(model: PreTrainedModel | str | Path, **arguments: Any) -> PreTrainedModel:
    """Load a causal LM from a path or hub id (`id@revision`); return a model object as it is, once checked.

    A model from the hub has the commit it was loaded from in its configuration (`_commit_hash`). An adapter of peft
    means its model with the adapter merged into it.

    Raises:
        UserError: nothing loadable is there; the weights do not match the configuration exactly or are not finite; or
            the model needs its own code, which is not trusted.
    """
    if not isinstance(model, str | Path):
        return checked_object(model)
    source = str(model)
    name, revision = locate(source)
    if Path(name).is_dir():
        check_files(Path(name), with_weights=not arguments.get("subfolder"))
    # Checkpoints record the name, which must not depend on the working directory.
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
    """Load a model; return it and transformers' loading report."""
    if is_gguf(Path(name)):
        config = read_gguf(AutoConfig, CONFIGURATION, Path(name))
        return unpacked(AutoModelForCausalLM, WHAT, Path(name), config, arguments)
    found: Any = AutoModelForCausalLM.from_pretrained(
        name, revision=revision, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
    )
    return found


def load_model(
    source: str,
    *,
    anchor: str = "",
    augs: Sequence[str] = (),
    allow_different_base: bool = False,
    trust_remote_code: bool = False,
    **arguments: Any,
) -> PreTrainedModel:
    """Load a plain, composed or adapted model from a path, run or hub id, to generate with.

    Args:
        anchor, augs: bases of a composed or adapted model, if they are not to be taken from where it says they are.
        arguments: further ones of `load_base`.

    Raises:
        UserError: there is none, a base is not the recorded one, bases are given for a plain model, or a plain model
            attends to later tokens.
    """
    how = {"trust_remote_code": trust_remote_code, **arguments}
    known = {name: how[name] for name in SOURCE_ARGUMENTS if name in how}
    if isinstance(base_config(source, **known), PartsConfig):
        given = {"anchor": anchor or None, "augs": list(augs) or None}
        return load_base(source, allow_different_base=allow_different_base, **given, **how)
    return _checked_to_generate(load_base(source, **how), source, bool(anchor or augs or allow_different_base))


def model_without_weights(
    source: str,
    *,
    anchor: str = "",
    augs: Sequence[str] = (),
    allow_different_base: bool = False,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return what `load_model` would load, with parameters that have shapes but no values.

    Raises:
        UserError: what `load_model` would refuse before reading weights, except the bases of a composed model.
    """
    how = {"trust_remote_code": trust_remote_code}
    config = base_config(source, **how)
    model = without_weights(config)
    if isinstance(config, PartsConfig):
        return model
    return _checked_to_generate(model, source, bool(anchor or augs or allow_different_base))


def _checked_to_generate(model: PreTrainedModel, source: str, names_bases: bool) -> PreTrainedModel:
    """Return a plain model, or raise UserError if it cannot generate or if options name bases of it."""
    if names_bases:
        raise UserError(
            f"{source!r} is a plain model: it has no frozen bases that --anchor, --aug or --allow-different-base could "
            "mean"
        )
    if reason := layers.reads_ahead(model):
        raise UserError(f"{source!r}, a {type(model).__name__}, cannot generate: {reason}")
    return model


def without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """Return a causal LM of this configuration whose parameters have shapes but no values.

    Raises:
        UserError: the configuration is not that of a causal LM, or its quantisation cannot be loaded here.
    """
    _check_quantization(config)
    with torch.device("meta"):
        return _from_config(config)


def untrained(config: PreTrainedConfig, seed: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a model with random weights drawn from a seed, independent of the global random state.

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
    """Tell whether an object's class comes from code beside a model, which was trusted and has run."""
    return type(thing).__module__.startswith("transformers_modules.")


def _check_quantization(config: PreTrainedConfig) -> None:
    """Refuse a configuration whose quantisation is unknown or cannot run here.

    Raises:
        UserError: the method is unknown, or a package or device is missing.
    """
    settings = getattr(config, "quantization_config", None)
    if not isinstance(settings, dict):
        return  # none, or an object, whose method is known
    name = config._name_or_path or type(config).__name__
    if not AutoHfQuantizer.supports_quant_method(settings):
        method = settings.get("quant_method")
        raise UserError(f"{name}: quantised by {method!r}, which transformers {transformers.__version__} does not know")
    try:
        get_hf_quantizer(copy.deepcopy(config), None, None, True, {})
    except Exception as error:
        raise unloadable(WHAT, name, error) from error


def quiet_libraries() -> None:
    """Silence the progress bars of libraries; runs report their own progress."""
    transformers_logging.disable_progress_bar()


def base_config(source: str, **arguments: Any) -> PreTrainedConfig:
    """Load the configuration of a path, run or hub id; for an adapter, that of its model.

    Raises:
        UserError: there is none.
    """
    return _load(AutoConfig, CONFIGURATION, whole_model(source, **arguments), **arguments)


@without_collection()
def load_tokenizer(source: str, **arguments: Any) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a path, run or hub id (`id@revision`); for an adapter without one, that of its model.

    Raises:
        UserError: there is none.
    """
    base = adapted_model(source, **arguments)
    if base is None:
        folder = Path(locate(source)[0])
        if folder.is_dir() and not has_tokenizer(source) and not any(map(any, map(folder.glob, OTHER_TOKENIZERS))):
            # For some types of models transformers would make up a tokenizer that knows no text.
            raise UserError(f"cannot load a tokenizer from {source!r}: its folder holds none")
        return _load(AutoTokenizer, "a tokenizer", source, **arguments)
    if not has_tokenizer(source, **arguments):
        return load_tokenizer(whole_model(source, **arguments), **arguments)
    # Some tokenizers depend on the model's configuration, which is not beside an adapter.
    return _load(AutoTokenizer, "a tokenizer", source, config=base_config(source, **arguments), **arguments)


def find_tokenizer(source: str, **arguments: Any) -> PreTrainedTokenizerBase | None:
    """Load the tokenizer of a path, run or hub id; None if a folder or repository has no tokenizer file.

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
