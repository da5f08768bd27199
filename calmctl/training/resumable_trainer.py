"""ResumableTrainer: the part of the training run that writes checkpoints and resumes from them."""

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer

from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.stored.weights import WEIGHTS_FILE, load_parameters
from calmctl.processes.ranks import Ranks
from calmctl.training.batches import Batches
from calmctl.training.checkpoints import CURRICULUM_FILE, METER_FILE, rotate, seal, written_or_removed
from calmctl.training.layout import whole_state
from calmctl.training.safeguards import DivergenceWatch, FrozenBases, check_same_reading
from calmctl.training.step_log import Meter
from data_builders.values import read_json, write_json


class ResumableTrainer(Trainer):
    """A Trainer that seals complete checkpoints and resumes from sealed ones only.

    Old checkpoints are removed once a new one is sealed. The first process writes them, in the same format for every
    layout; all processes take part in gathering the state.
    """

    batches: Batches
    meter: Meter
    divergence: DivergenceWatch
    ranks: Ranks
    frozen: FrozenBases | None
    is_sharded: bool
    _saved_step = -1

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.divergence.check_losses()
        self.divergence.check_parameters(parameter for parameter in model.parameters() if parameter.requires_grad)
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        with written_or_removed(folder):
            super()._save_checkpoint(model, trial)
            counted = self.meter.state(self.ranks)
            if self.ranks.is_first:
                write_json(folder / METER_FILE, counted)
                if self.batches.curriculum is not None:
                    write_json(folder / CURRICULUM_FILE, self.batches.curriculum.state())
                seal(folder)
        self._saved_step = self.state.global_step
        if self.ranks.is_first:
            rotate(folder.parent, self.state.best_model_checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Gather the model, and write it from the first process."""
        state = None
        if self.is_sharded and not isinstance(self.model, PartsModel):
            state = whole_state(cast(nn.Module, self.model), self.ranks)
        if self.ranks.is_first:
            self._save(output_dir, state_dict=state)
        self.ranks.wait()  # here, because the next collective has a time limit on GPUs

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if isinstance(self.model, PartsModel) and self.frozen is not None:
            fingerprints = self.frozen.fingerprints
            self.model.save_pretrained(Path(str(output_dir)), state_dict=state_dict, fingerprints=fingerprints)
        else:
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_sharded and not self.ranks.is_first:
            cast(torch.optim.Optimizer, self.optimizer).state_dict()  # takes part in gathering
        super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        schedule: Any = self.lr_scheduler
        if checkpoint and schedule is not None and self.optimizer is not None:
            # The stored rates of the next step are those of a run that was to end earlier, if more steps were added.
            rates = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
            schedule._last_lr = [rate * share(schedule.last_epoch) for rate, share in rates]
            for group, rate in zip(self.optimizer.param_groups, schedule.get_last_lr(), strict=True):
                group["lr"] = rate

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Do nothing: the seal has been checked, and missing keys are tied to keys that were loaded."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        if isinstance(self.model, PartsModel):
            if self.frozen is not None:
                stored = read_json(folder / "config.json")
                self.frozen.check_same_as([base["fingerprint"] for base in stored["bases"]])
                check_same_reading(self.model, stored)
            load_parameters(self.model, folder / WEIGHTS_FILE)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.batches.curriculum is not None:
            self.batches.curriculum.restore(read_json(folder / CURRICULUM_FILE))
        if (folder / METER_FILE).is_file():
            self.meter.carried = read_json(folder / METER_FILE)
        self._saved_step = int(folder.name.rpartition("-")[2])
