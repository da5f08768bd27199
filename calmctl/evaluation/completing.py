"""Complete the prompts of a file, or of any other source of rows, into a file; resumed after an interruption."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from calmctl.errors import UserError
from calmctl.evaluation.models import Model
from calmctl.evaluation.prompts import rendered
from calmctl.evaluation.work_files import WorkFiles
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import Engine
from calmctl.inference.prompt import FittedPrompts, fit
from calmctl.inference.writer import Throughput
from calmctl.runs.lock import FileLock
from calmctl.runs.record import LOCK_FILE, PROGRESS_FILE
from calmctl.runs.run import in_use
from data_builders.example_rows import read_example_rows
from data_builders.files import write_text
from data_builders.row_files import json_lines
from data_builders.row_forms import PROMPT_FORMS, messages_of
from data_builders.values import write_json
from evals import Request
from evals.rows import plain_prompt

STDIN = "-"


def work_folder(out: Path) -> Path:
    """Return the folder that holds the finished completions of an unfinished output."""
    return out.with_name(f"{out.name}.unfinished")


def complete_file(
    source: str,
    out: Path,
    model: Model,
    decoding: Decoding,
    max_new_tokens: int,
    columns: Mapping[str, str] | None = None,
) -> int:
    """Complete every prompt of a source of rows; write JSON Lines with `id`, `prompt` and `completion`, in its order.

    `out` appears as a whole when all are done; until then finished completions are kept in `work_folder(out)`, where
    the same call goes on.

    Args:
        source: a file, pattern, folder or hub id (see `data_builders.row_sources`); `-` = JSON Lines from stdin.
        columns: our name of a column -> its name in the source.

    Returns:
        The number of completions.

    Raises:
        UserError: there is an `out` already, or another process is writing it; the prompts cannot be read, or not by
            this model; the kept completions are of other prompts, another model or other settings.
    """
    _check_new(out)
    asked = rendered(read_prompts(source, max_new_tokens, columns), model.tokenizer)
    fitted = fit(model.shape, model.tokenizer, asked)
    folder = work_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    if not lock.acquire():
        raise in_use(out, lock)
    try:
        _check_new(out)  # another process may have been here before we had the lock
        _complete(asked, fitted, out, model, decoding)
        shutil.rmtree(folder)
    finally:
        lock.release()
    return len(asked)


def _check_new(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out}: exists; choose another --out, or delete it")


def _complete(asked: Sequence[Request], fitted: FittedPrompts, out: Path, model: Model, decoding: Decoding) -> None:
    """Complete what is left and write `out`."""
    folder = work_folder(out)
    work = WorkFiles(folder, asked, f"{model.identity['weights_sha256']} {decoding.name}")
    finished = work.read()

    def report(so_far: Throughput) -> None:
        said = {"stage": "generating", "step": so_far.done, "total": so_far.total}
        speed = {"tokens_per_second": so_far.tokens_per_second, "eta_seconds": so_far.eta_seconds}
        write_json(folder / PROGRESS_FILE, {**said, **speed}, durable=False)

    engine = Engine(model.loaded, model.tokenizer, decoding, Throughput(on_batch=report))
    for batch in engine.generate(fitted, finished.keys()):
        work.append((sample.prompt_index, sample.index, sample.text) for sample in batch)
    texts = work.read()
    rows = ({"id": each.id, "prompt": each.text, "completion": texts[place, 0]} for place, each in enumerate(asked))
    write_text(out, json_lines(rows))


def read_prompts(source: str, max_new_tokens: int, columns: Mapping[str, str] | None = None) -> list[Request]:
    """Read prompts as requests; a conversation that the assistant ends is asked for that answer.

    Raises:
        UserError: see `read_example_rows`; or a prompt is empty, or two have the same id.
    """
    if source == STDIN:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "stdin.jsonl"
            path.write_bytes(sys.stdin.buffer.read())
            try:
                return read_prompts(str(path), max_new_tokens, columns)
            except UserError as error:
                raise UserError(str(error).replace(str(path), "stdin")) from None
    table, requests = read_example_rows(source, columns, PROMPT_FORMS), list[Request]()
    for number, row in enumerate(table.to_pylist(), 1):
        messages = messages_of(row["messages"]) if "messages" in row else []
        if messages and messages[-1]["role"] == "assistant":
            messages.pop()
        prompt = plain_prompt(messages) if "messages" in row else row["prompt"]
        if not prompt:
            raise UserError(f"{source}: row {number} has an empty prompt; leave it out")
        name = str(number) if row.get("id") is None else row["id"]
        requests.append(Request(name, prompt, max_new_tokens, messages=tuple(messages)))
    if len({request.id for request in requests}) < len(requests):
        raise UserError(f"{source}: two rows have the same id; make them different, or leave the column out")
    return requests
