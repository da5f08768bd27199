"""Checkpoints of models stored in parts: trained parameters, configuration and a fingerprint of each base.

The weights of the bases are written only on request (`merge_bases`). A checkpoint records the source of each base and
refuses a base of other configuration or weights.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils import cached_file

from calmctl.errors import UserError
from calmctl.modeling import layers
from calmctl.modeling.bases.fingerprint import require_recorded_base
from calmctl.modeling.bases.given_models import checked_object
from calmctl.modeling.bases.locating import hub_arguments
from calmctl.modeling.bases.sources import SOURCE_ARGUMENTS, base_config, find_tokenizer, load_base, untrained
from calmctl.modeling.configuration import PartsConfig
from calmctl.modeling.placement import as_dtype, check_placement, convert
from calmctl.modeling.stored.base_sources import check_number, find_base, source_of
from calmctl.modeling.stored.card import write_card
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.stored.weights import WEIGHTS_FILE, load_parameters, write_parameters
from data_builders.files import share_as_umask_says, write_text

Model = TypeVar("Model", bound=PartsModel)

# Lets transformers' Auto classes find our classes without `import calmctl` (`trust_remote_code=True`).
CODE_FILE = "modeling_calm.py"
CODE_MODULE = CODE_FILE.removesuffix(".py")


def save_parts(
    model: PartsModel,
    directory: Path,
    state_dict: Mapping[str, Tensor] | None = None,
    *,
    merge_bases: bool = False,
    fingerprints: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write config.json and model.safetensors (trained parameters only); read the weights back and compare them.

    Also written are generation settings, tokenizers of augs that need one, the module that `trust_remote_code` runs and
    a model card.

    Args:
        state_dict: parameters to write instead of the model's own (a gathered state of a sharded model).
        merge_bases: also write every base below the directory, which makes it self-contained.
        fingerprints: of anchor and augs, if known; hashing large models takes a while.

    Raises:
        UserError: the parameters cannot be written, or differ when read back (a full or failing disk).
    """
    directory.mkdir(parents=True, exist_ok=True)
    bases = model.bases()
    names = ["anchor", *(f"aug_{index}" for index in range(len(model.augs)))]
    sources: list[dict[str, Any]] = [source_of(base, directory) for base in bases]
    if model.config.aug_seed is not None:
        sources[1:] = [{"untrained_seed": model.config.aug_seed + index} for index in range(len(model.augs))]
    if merge_bases:
        for base, name in zip(bases, names, strict=True):
            base.save_pretrained(directory / name)
            share_as_umask_says(directory / name)
        # Hub sources stay recorded; a local folder means nothing on other machines.
        sources = [
            {"subfolder": name} if "relative_source" in source else {"subfolder": name, **source}
            for name, source in zip(names, sources, strict=True)
        ]
    if fingerprints is None:
        fingerprints = model.fingerprints()
    model.config.bases = [
        {**source, "fingerprint": dict(known)} for source, known in zip(sources, fingerprints, strict=True)
    ]
    model.config.anchor, *model.config.augs = (_portable(base) for base in bases)
    model.config.architectures = [type(model).__name__]
    classes = {"AutoConfig": type(model.config), "AutoModelForCausalLM": type(model)}
    model.config.auto_map = {auto: f"{CODE_MODULE}.{ours.__name__}" for auto, ours in classes.items()}
    current: Mapping[str, Tensor] = state_dict if state_dict is not None else model.stored_tensors()
    tensors = {name: current[name].detach().cpu().contiguous() for name in model.stored_tensors()}
    write_parameters(tensors, directory / WEIGHTS_FILE)
    model.save_beside(directory)
    model.config.save_pretrained(directory)
    model.generation_config.save_pretrained(directory)
    write_text(directory / CODE_FILE, Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8"))
    write_card(model, directory)


def _portable(base: PreTrainedModel) -> dict[str, Any]:
    """Return the configuration of a base without its source, which `bases` records."""
    return {key: value for key, value in base.config.to_dict().items() if key != "_name_or_path"}


def load_parts(
    model_class: type[Model],
    location: str | Path,
    anchor: PreTrainedModel | str | None = None,
    augs: PreTrainedModel | str | Sequence[PreTrainedModel | str] | None = None,
    *,
    allow_different_base: bool = False,
    dtype: torch.dtype | str | None = None,
    **arguments: Any,
) -> Model:
    """Load a model that is stored in parts from a directory or hub id.

    Args:
        anchor, augs: bases to use instead of the recorded ones.
        allow_different_base: accept bases whose fingerprints differ.
        dtype: convert everything to this dtype, after the fingerprints have been checked in the recorded one.
        arguments: passed to `from_pretrained` of the bases (device_map, attn_implementation, ...).

    Raises:
        UserError: a file is missing or damaged, keys or shapes do not match, or a base is not the recorded one.
        TypeError: `subfolder` or `state_dict`, which are not supported.
    """
    revision, dtype, hub = _own_arguments(model_class, arguments, dtype)
    config = _stored_config(model_class, location, revision, arguments, hub)
    if augs is not None:
        augs = [augs] if isinstance(augs, PreTrainedModel | str | Path) else augs
        check_number(config, location, augs)
        config.aug_seed = None
    given = [anchor, *(augs if augs is not None else [None] * len(config.augs))]
    configs = [config.anchor_config(), *config.aug_configs()]
    settings = [config.anchor, *config.augs]
    bases: list[PreTrainedModel] = []
    tokenizers: list[Callable[[], Any] | None] = []
    for index, (known, override) in enumerate(zip(config.bases, given, strict=True)):
        role = "anchor" if index == 0 else f"aug {index - 1}"
        recorded = _Recorded(role, known, settings[index], configs[index])
        base, source = _base_of(recorded, override, location, revision, arguments)
        is_compared = source and not allow_different_base
        tokenizers.append(partial(find_tokenizer, source, **_reach(arguments)) if is_compared else None)
        if not allow_different_base:
            require_recorded_base(role, known["fingerprint"], settings[index], base)
        elif override is not None:
            _check_fits(role, base, configs[index])
        bases.append(base)
    model = model_class.from_bases(config, bases)
    model.load_beside(location, tokenizers, revision=revision, **hub)
    # Tools load a model again by its name, as the reference of a preference loss for example.
    model.name_or_path = model.config.name_or_path = str(location)
    path = Path(location) / WEIGHTS_FILE
    if not Path(location).is_dir():
        path = Path(cached_file(str(location), WEIGHTS_FILE, revision=revision, **hub))  # type: ignore[arg-type]
    stored = load_parameters(model, path)
    for parameter in model.trained_parameters().values():
        parameter.data = parameter.data.to(stored)
    with suppress(OSError):
        model.generation_config = GenerationConfig.from_pretrained(location, revision=revision, **hub)
    if dtype not in (None, "auto"):
        convert(model, as_dtype(dtype))
    return model


def _own_arguments(
    model_class: type[Model], arguments: dict[str, Any], dtype: torch.dtype | str | None
) -> tuple[str, torch.dtype | str | None, dict[str, Any]]:
    """Take the arguments that are for the checkpoint out of those for its bases; return revision, dtype and hub's."""
    # The Auto classes pass these for this checkpoint; they do not apply to its bases.
    revision = arguments.pop("revision", None) or "main"
    for unneeded in ("adapter_kwargs", "ignore_mismatched_sizes"):
        arguments.pop(unneeded, None)
    dtype = arguments.pop("torch_dtype", dtype)
    check_placement(dtype, arguments.get("device_map"))
    # An empty subfolder means none, from callers that pass every argument on.
    if not arguments.get("subfolder"):
        arguments.pop("subfolder", None)
    if unwanted := sorted(arguments.keys() & {"subfolder", "state_dict"}):
        raise TypeError(f"from_pretrained of {model_class.__name__} does not take {', '.join(unwanted)}")
    return revision, dtype, hub_arguments(arguments)


def _stored_config(
    model_class: type[Model], location: str | Path, revision: str, arguments: dict[str, Any], hub: Mapping[str, Any]
) -> Any:
    """Return the checkpoint's configuration, or the one among `arguments`, which then lose it."""
    config: Any = arguments.pop("config", None)
    if config is None:
        config = base_config(str(location) if Path(location).is_dir() else f"{location}@{revision}", **hub)
    if type(config) is not model_class.config_class:
        raise UserError(f"{location}: holds a {config.model_type} model, which is no {model_class.__name__}")
    if config._attn_implementation is not None:
        # The Auto classes put this argument into the configuration; files never contain it.
        arguments.setdefault("attn_implementation", config._attn_implementation)
    return config


class _Recorded(NamedTuple):
    """What a checkpoint records of a base: its role, source and fingerprint, and its configuration in two forms."""

    role: str
    known: Mapping[str, Any]
    settings: Mapping[str, Any]
    config: PreTrainedConfig


def _base_of(
    recorded: _Recorded,
    override: PreTrainedModel | str | Path | None,
    location: str | Path,
    revision: str,
    arguments: Mapping[str, Any],
) -> tuple[PreTrainedModel, str]:
    """Return a base, and the source whose tokenizer can be compared with the stored one; empty if there is none."""
    known = recorded.known
    if override is not None and not isinstance(override, str | Path):
        return checked_object(override), ""
    if override is None and "untrained_seed" in known and "subfolder" not in known:
        return untrained(recorded.config, known["untrained_seed"], as_dtype(known["fingerprint"]["dtype"])), ""
    if override is None and "subfolder" in known and not Path(location).is_dir():
        return _load_merged(f"{location}@{revision}", known, arguments), ""
    source = find_base(known, location, recorded.role) if override is None else str(override)
    return _load_unmerged(source, known, recorded.settings, arguments), source


def _check_fits(role: str, base: PreTrainedModel, recorded: PreTrainedConfig) -> None:
    """Refuse a replacement that has fewer layers or token ids than the recorded base, or that cannot be a base."""
    layers.check_base(base, role)
    for name in ("num_hidden_layers", "vocab_size"):
        found, needed = (getattr(layers.text_config(each), name) for each in (base.config, recorded))
        if found < needed:
            raise UserError(f"the {role}, a {type(base).__name__}, has {found} of `{name}`; {needed} are needed here")


def _load_merged(location: str, known: Mapping[str, Any], arguments: Mapping[str, Any]) -> PreTrainedModel:
    """Load a base from its subfolder of a composed model on the hub."""
    how = {"dtype": known["fingerprint"]["dtype"], **arguments}
    base = load_base(location, subfolder=known["subfolder"], **how)
    # The composed model's repository is not the source of this base when it is saved again.
    base.config._name_or_path, base.config._commit_hash = known.get("source") or "", known.get("revision")
    return base


def _load_unmerged(
    source: str, known: Mapping[str, Any], settings: Mapping[str, Any], arguments: Mapping[str, Any]
) -> PreTrainedModel:
    """Load a base from its own source, quantised as recorded unless told otherwise or stored quantised."""
    how = {"dtype": known["fingerprint"]["dtype"], **arguments}
    config, quantization = base_config(source, **_reach(arguments)), settings.get("quantization_config")
    if isinstance(config, PartsConfig):
        raise UserError(f"{source}: itself composed or adapted, so it cannot be a base")
    if quantization and "quantization_config" not in how and not getattr(config, "quantization_config", None):
        how["quantization_config"] = AutoQuantizationConfig.from_dict(dict(quantization))
    return load_base(source, **how)


def _reach(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in SOURCE_ARGUMENTS if name in arguments}
