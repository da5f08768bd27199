"""The settings of an evaluation, and checks of its data that can be made before hours of training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calmctl.errors import UserError
from calmctl.evaluation.tasks import TaskConfig
from calmctl.inference.settings import Decoding, OnOverflow, check_greedy
from calmctl.modeling.bases.locating import locate, source_sha256
from calmctl.runs.record import PREDICTIONS_FILE
from calmctl.schema import meaning
from data_builders.files import require_file, sha256_of
from evals import Request

PLACE = "{answer}"


@dataclass(frozen=True)
class EvalConfig(TaskConfig):
    """Settings of an evaluation: generate completions for a task and score them.

    Attributes:
        model: a run, folder or hub id.
        on_overflow: for a prompt longer than the model's context: `drop_shots` (drop the first worked examples, keep
            the question) or `fail`.
        anchor, augs: bases of a composed or adapted model, if they are not where it says they are.
        allow_different_base: evaluate a composed model even if its bases differ from the recorded ones.
        trust_remote_code: run code from the model's repository if the model needs it.
        bits_per_byte: also measure bits per byte over the references; this metric moves long before the others do.
        handover: a complete evaluation of the same prompts by another model, or a file of its completions; its answer
            is put before each prompt.
        handover_text: the text put before the prompt; `{answer}` is replaced by the answer.
        mix: a second model: each next byte is decoded from the average of both models' probabilities, so their
            tokenizers may differ.
        mix_weight: weight of the second model in the average.
        threads: CPU threads; 0 = torch's default.
    """

    model: str = ""
    on_overflow: OnOverflow = "drop_shots"
    anchor: str = field(default="", metadata=meaning("free"))
    augs: tuple[str, ...] = field(default=(), metadata=meaning("free"))
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

    def check_inputs(self) -> None:
        """Check, without reading them, that model and data are given and that local models and answers exist.

        Raises:
            UserError: one is missing.
        """
        if not self.model:
            raise UserError("model is not set; give --model MODEL")
        for source in filter(None, (self.model, *self._given_bases.values(), self.mix)):
            locate(source)
        self.require_dataset()
        if self.handover:
            require_file(answers_file(self.handover))

    @property
    def _given_bases(self) -> dict[str, str]:
        """Return name -> source of the bases that may be others than the recorded ones; "" where none is given."""
        if not self.allow_different_base:
            return {}
        return {"anchor": self.anchor, **{f"aug_{index}": aug for index, aug in enumerate(self.augs)}}

    def inputs(self) -> dict[str, str]:
        """Return the checksums of the inputs (model, data, mix, handover); raises UserError if one is not set."""
        self.check_inputs()
        read = {"model": source_sha256(self.model), "data": self.data_sha256}
        read |= {name: source_sha256(base) for name, base in self._given_bases.items() if base}
        if self.mix:
            read["mix"] = source_sha256(self.mix)
        return read | {"handover": sha256_of(answers_file(self.handover))} if self.handover else read


def answers_file(source: str) -> Path:
    """Return the file of completions: `source` itself, or the predictions of the run that it names."""
    path = Path(source)
    return path / PREDICTIONS_FILE if path.is_dir() else path


def check_data(config: EvalConfig) -> None:
    """Read the task's data only to find its errors: before hours of training, not after.

    Raises:
        UserError: the data cannot be used, or bits per byte are wanted and the task has no references.
    """
    requests = config.build_task().requests(config.load_records())
    if config.bits_per_byte:
        check_references(config, requests)


def check_references(config: EvalConfig, requests: Sequence[Request]) -> None:
    """Raise UserError if the task has no references to measure bits per byte on."""
    if not any(request.reference for request in requests):
        raise UserError(f"bits_per_byte: the task {config.task} has no references; leave it out")
