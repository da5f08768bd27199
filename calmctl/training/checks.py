"""Checks of a training's settings before its models are looked at: against this machine and against each other."""

import copy
from collections.abc import Sequence
from importlib.util import find_spec

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from calmctl.errors import UserError
from calmctl.processes.ranks import check_devices, num_processes
from calmctl.training.settings import TrainSettings


def check_settings(settings: TrainSettings, is_validated: bool) -> None:
    """Check settings against this machine and against each other.

    Args:
        is_validated: a validation file is given.

    Raises:
        UserError: a setting needs something that is missing, or does not fit the number of processes.
    """
    _check_trackers(settings.report_to)
    has_gpu = torch.cuda.is_available()
    if settings.precision == "fp16" and not has_gpu:
        raise UserError("train.precision=fp16 needs a GPU, and there is none; use bf16 or fp32")
    if settings.precision == "bf16" and has_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"train.precision=bf16: {torch.cuda.get_device_name()} cannot compute in it; use fp16 or fp32")
    if settings.trains and not is_validated and not settings.validation_share:
        if wanting := [name for name in ("patience", "keep_best") if getattr(settings, name)]:
            wanted = "give --validation FILE or train.validation_share=..."
            raise UserError(f"train.{wanting[0]} needs a validation: {wanted}")
    _check_processes(settings, num_processes())
    if settings.keep_states in ("memory", "disk") and num_processes() > 1:
        raise UserError(f"train.keep_states={settings.keep_states}: each of several processes would keep all; use none")
    check_devices()


def check_attention(config: PreTrainedConfig, attention: str, name: str = "attention") -> None:
    """Raise UserError if a model cannot use an attention implementation here; empty = transformers' choice."""
    if not attention:
        return
    try:
        is_trusted = type(config).__module__.startswith("transformers_modules.")  # its code ran at loading
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation=attention, trust_remote_code=is_trusted
            )
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}={attention}: {reason}") from error


def _check_trackers(report_to: Sequence[str]) -> None:
    """Raise UserError for a tracker whose package is not installed."""
    if missing := [name for name in report_to if find_spec(name) is None]:
        raise UserError(
            f"train.report_to: {', '.join(missing)} is not installed; install it (pip install 'calmctl[tracking]') "
            "or leave it out"
        )


def _check_processes(settings: TrainSettings, count: int) -> None:
    """Raise UserError where batches cannot be split over the processes, or fp16 is combined with sharding."""
    if not settings.batch_tokens and settings.batch_size % (settings.accumulation * count):
        raise UserError(
            f"train.batch_size={settings.batch_size} must be a multiple of train.accumulation={settings.accumulation} "
            f"times {count} processes; change one of them"
        )
    if settings.sharding != "none" and settings.precision == "fp16":
        raise UserError(f"train.precision=fp16 does not go with train.sharding={settings.sharding}; use bf16")
