"""Whole models: the job that trains one, and new ones, built from settings and the vocabulary of a tokenizer."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import source_sha256
from calmctl.modeling.bases.public_shapes import Shape
from calmctl.modeling.bases.sources import base_config, load_base, load_tokenizer
from calmctl.training.checks import check_attention
from calmctl.training.configs import TrainConfig
from calmctl.training.job import Job
from calmctl.training.plan import model_of, plan_training
from calmctl.training.prepared import Planned


def training_job(config: TrainConfig) -> Job:
    """Return the job that trains a whole model.

    Raises:
        UserError: the configuration names no model or no data, or they do not exist.
    """
    config.check_inputs()
    how = {"trust_remote_code": config.trust_remote_code}

    def plan() -> Planned:
        tokenizer = load_tokenizer(config.tokenizer or config.base, **how)
        base = base_config(config.base, **how) if config.base else model_config(config.model, tokenizer)
        check_attention(base, config.model.get("attn_implementation", ""), "model.attn_implementation")
        return Planned(plan_training(config, model_of(Shape(base))), tokenizer, base, [base])

    def build(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        if config.base:
            return load_base(config.base, dtype=torch.float32, **how)
        return new_model(config.model, tokenizer)

    return Job("train", config, lambda: {"base": source_sha256(config.base)}, plan, build)


def model_config(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Return the configuration of a new model, with the tokenizer's vocabulary and special tokens.

    Raises:
        UserError: `model_type` is missing or unknown, or a setting does not fit it.
    """
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return model_config_of_size(settings, len(tokenizer), **special)


def model_config_of_size(
    settings: dict[str, Any], vocab_size: int, **special_token_ids: int | None
) -> PreTrainedConfig:
    """Return the configuration of a new model with `vocab_size` token ids.

    Raises:
        UserError: `model_type` is missing or unknown, or a setting does not fit it.
    """
    arguments = {name: value for name, value in settings.items() if name not in ("model_type", "attn_implementation")}
    model_type = str(settings.get("model_type"))
    try:
        return AutoConfig.for_model(model_type, vocab_size=vocab_size, **special_token_ids, **arguments)
    except Exception as error:  # configurations raise errors of several libraries
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.model_type={model_type!r}: no such configuration can be built ({reason})") from error


def new_model(settings: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a randomly initialised model of a configuration (see `model_config`).

    Raises:
        UserError: the settings do not give a model that runs.
    """
    attention = {"attn_implementation": settings["attn_implementation"]} if "attn_implementation" in settings else {}
    config = model_config(settings, tokenizer)
    try:
        model = AutoModelForCausalLM.from_config(config, **attention)
        with torch.inference_mode():
            model.eval()(input_ids=torch.zeros((1, 2), dtype=torch.long))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # sizes that do not fit each other show only in a forward pass
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model: a {config.model_type} of these settings reads no token ({reason})") from error
    return model.train()
