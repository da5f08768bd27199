"""The job that trains a whole model, from scratch or further."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.modeling.bases.locating import source_sha256
from calmctl.modeling.bases.public_shapes import Shape
from calmctl.modeling.bases.sources import base_config, load_base, load_tokenizer
from calmctl.training.checks import check_attention
from calmctl.training.configs import TrainConfig
from calmctl.training.job import Job
from calmctl.training.models import model_config, new_model
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
