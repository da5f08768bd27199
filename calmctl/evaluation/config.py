"""The settings of an evaluation, and what is made sure of before hours of training: that its data can be used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calmctl.errors import UserError
from calmctl.evaluation.models import Models, Subject
from calmctl.evaluation.tasks import TaskConfig
from calmctl.inference.decoding import Decoding
from calmctl.inference.mixture import check_greedy
from calmctl.inference.prompt import OnOverflow
from calmctl.modeling.bases.sources import source_sha256
from calmctl.runs.record import PREDICTIONS_FILE
from calmctl.schema import meaning
from data_builders.files import sha256_of
from evals import Request

PLACE = "{answer}"


@dataclass(frozen=True)
class EvalConfig(TaskConfig):
    """Generate and score a task.

    Attributes:
        model: a run, folder or hub id.
        on_overflow: what happens to a prompt that exceeds the model's context: `drop_shots` (the first ones; the
            question is kept) or `fail`.
        allow_different_base: evaluate a composed model although its bases are not the recorded ones.
        trust_remote_code: run the code that lies beside the model, where that needs it.
        bits_per_byte: also measure how many bits the model needs for the references of the task (`bits_per_byte`): a
            figure that moves long before the others do.
        handover: a finished evaluation of the same questions by another model, or a file of its completions: its answer
            stands before every question.
        handover_text: how; `{answer}` in it becomes the answer.
        mix: another model, which writes together with this one: the average of both chances decides about every next
            byte, so tokenizers may differ.
        mix_weight: the other one's share of the average.
        threads: CPU threads; 0 = torch's default.
    """

    model: str = ""
    on_overflow: OnOverflow = "drop_shots"
    allow_different_base: bool = False
    trust_remote_code: bool = field(default=False, metadata=meaning("free"))
    decoding: Decoding = field(default_factory=Decoding)
    bits_per_byte: bool = False
    handover: str = ""
    handover_text: str = "Another model's answer: {answer}\n\n"
    mix: str = ""
    mix_weight: float = 0.5
    threads: int = field(default=0, metadata=meaning(may_differ=True))

    def __post_init__(self) -> None:
        """Raise UserError or ValueError for settings out of range."""
        super().__post_init__()
        if self.threads < 0:
            raise ValueError(f"threads={self.threads} must not be negative (0 = torch's default)")
        if PLACE not in self.handover_text:
            raise ValueError(f"handover_text={self.handover_text!r} has no {PLACE}, where the answer stands")
        if not 0 <= self.mix_weight <= 1:
            raise ValueError(f"mix_weight={self.mix_weight} must be between 0 and 1 (the other model's share)")
        if self.mix:
            check_greedy(self.decoding)

    def inputs(self) -> dict[str, str]:
        """Return the checksums of what the evaluation reads, by name; raises UserError for what was not given."""
        if not self.model:
            raise UserError("model is not set; give --model MODEL")
        read = {"model": source_sha256(self.model), "data": self.data_sha256}
        if self.mix:
            read["mix"] = source_sha256(self.mix)
        return read | {"handover": sha256_of(answers_file(self.handover))} if self.handover else read

    def subject(self, models: Models) -> Subject:
        """Return what answers."""
        how = self.allow_different_base, self.trust_remote_code
        return Subject(models.of(self.model, *how), models.of(self.mix, *how) if self.mix else None)


def answers_file(source: str) -> Path:
    """Return the file of completions that is meant: one, or that of a finished evaluation."""
    path = Path(source)
    return path / PREDICTIONS_FILE if path.is_dir() else path


def check_data(config: EvalConfig) -> None:
    """Read the task's data, for its errors alone: before hours of training rather than after them.

    Raises:
        UserError: it cannot be used.
        UserError: bits per byte are wanted, and the task has no references.
    """
    requests = config.build_task().requests(config.load_records())
    if config.bits_per_byte:
        check_references(config, requests)


def check_references(config: EvalConfig, requests: Sequence[Request]) -> None:
    """Raise UserError if bits per byte are wanted of a task without references."""
    if not any(request.reference for request in requests):
        raise UserError(f"bits_per_byte: the task {config.task} has no references; leave it out")
