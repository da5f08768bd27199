"""Training and held-out rows for compositions of pretrained models, read from unmodified public data."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedTokenizerBase

from calmctl.training.examples import Examples, load_examples
from calmctl.training.settings import TrainSettings

Row = dict[str, str]
# Tatoeba test sets (LASER, 2018): XXX-eng.tsv.gz, a sentence and its translation per line.
LANGUAGES = {
    "deu": "German", "fra": "French", "pol": "Polish", "ind": "Indonesian", "swh": "Swahili", "por": "Portuguese",
    "nld": "Dutch", "swe": "Swedish", "ces": "Czech", "ron": "Romanian",
}  # fmt: skip
UNSEEN = {"spa": "Spanish", "ita": "Italian", "tur": "Turkish"}
HELD_OUT, MOST = 16, 500


@dataclass(frozen=True)
class Rows:
    """Rows of prompt, completion and group (a language); `context`: maximum length of a row in anchor tokens."""

    train: list[Row]
    held_out: list[Row]
    context: int

    def examples(self, part: str, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings) -> Examples:
        """Return the rows of a part (`train` or `held_out`) as tokenised examples."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"{part}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in getattr(self, part)))
            return load_examples(file, tokenizer, settings, self.context)


def translation(folder: Path) -> Rows:
    """Return sentences of ten languages with their English translations; three more languages are held out only."""
    rows = Rows([], [], 48)
    for code, language in (LANGUAGES | UNSEEN).items():
        lines = gzip.decompress((folder / f"{code}-eng.tsv.gz").read_bytes()).decode().splitlines()
        pairs = [line.split("\t") for line in lines]
        found = [
            {"prompt": f"{language}: {foreign}\nEnglish:", "completion": f" {english}", "group": code}
            for foreign, english in pairs
        ]
        rows.held_out.extend(found[-HELD_OUT:])
        if code in LANGUAGES:
            rows.train.extend(found[:-HELD_OUT][:MOST])
    return rows


def python(file: Path) -> Rows:
    """Return the tasks of MBPP and their programs; those of its validation part (511 to 600) are held out."""
    rows = Rows([], [], 160)
    for line in file.read_text().splitlines():
        task = json.loads(line)
        code = task["code"].replace("\r\n", "\n").strip()
        row = {"prompt": task["text"].strip() + "\n", "completion": code, "group": "python"}
        if 511 <= task["task_id"] <= 600:
            rows.held_out.append(row)
        elif task["task_id"] > 10:
            rows.train.append(row)
    return rows


TASKS: dict[str, Callable[[Path], Rows]] = {"translation": translation, "python": python}


def read_rows(task: str, data: Path) -> Rows:
    """Return the rows of a task."""
    return TASKS[task](data)
