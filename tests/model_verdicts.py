"""What can be done with each model type of transformers, found out by doing it: docs/model-types.md.

python -m tests.model_verdicts > docs/model-types.md
"""

import math
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
import transformers
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from calmctl import __version__
from calmctl.errors import UserError
from calmctl.inference.decoding import ready_to_write
from calmctl.inference.generation import Engine
from calmctl.inference.prompt import fit
from calmctl.inference.reading import reading_of
from calmctl.inference.settings import Decoding
from calmctl.inference.text import completion_of
from calmctl.modeling.composition import compose
from calmctl.modeling.own_masks import shortest_reach, why_no_gaps, why_no_own_masks
from calmctl.modeling.selfcheck import check_composition
from data_builders.kv.tokenizers import build_word_tokenizer
from evals import Request
from tests.model_types import WITHOUT_TINY_MODEL, model_types, tiny_model
from tests.scored import bits_of

PAGE = Path(__file__).parents[1] / "docs" / "model-types.md"
SHOTS = ("solve: 1 + 2 = 3 ", "solve: 12 - 4 = 8 ", "substitute: ab = 7 ")
TEXTS = ["solve: 1 + 2 =", "solve: 12 + 33 - 4 =", "substitute: ab + cd =", "solve: 7 =", "9"]
REFERENCES = [" 3", " 41 k", " kc", " 7 8 9", " 1 + 2"]
HEAD = """# Model types

What calmctl {calmctl} does with each causal model type of transformers {version}, tested on tiny models with random
weights and the type's default configuration. `python -m tests.model_verdicts > docs/model-types.md` writes this page,
and slow tests compare it with their findings. This page decides nothing: a real model is always tested itself, by
[the self-check](composition.md#the-self-check) before it is composed and by the engine before it is evaluated.

- *as a base*: whether it passes the self-check when composed with another model of its type, as anchor and as aug
  ({bases} of {types} types), or why it is refused.
- *completions*: which prompts can share a batch without changing each other's completions ({completed} types);
  *caches*: rows can resume from caches, so common prefixes are read once.
- *likelihoods*: whether bits per byte equal those of each text alone ({likely} types), or why they are refused.
- *own tokenizer*: as an aug with another tokenizer than the anchor's, it reads its own tokenization of the text so far
  ({own} types), or every anchor token tokenized alone (`chunks`), or is refused (see [tokenizers](tokenizers.md)).

| model type | class | as a base | completions | likelihoods | own tokenizer |
|---|---|---|---|---|---|
"""


def word_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer that knows the words of the prompts here."""
    return build_word_tokenizer([f"k{chr(97 + i)}" for i in range(20)] + ["ab", "cd"], ["substitute:", "solve:"])


def asked() -> list[Request]:
    """Return prompts of several lengths, some of which begin alike."""
    return [Request("", text, 6, shots=SHOTS[: place % 3]) for place, text in enumerate(TEXTS)]


def completions(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Request], batch_size: int = 3
) -> list[str]:
    """Return what the engine writes after each prompt, in batches."""
    fitted = fit(model, tokenizer, prompts)
    batches = Engine(model, tokenizer, Decoding(batch_size=batch_size), share_prefixes=True).generate(fitted)
    return [sample.text for sample in sorted((s for batch in batches for s in batch), key=lambda s: s.prompt_index)]


def completions_alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[Request]) -> list[str]:
    """Return what plain `generate` writes after each prompt."""
    found = []
    with ready_to_write(model, tokenizer), torch.inference_mode():
        ends = model.generation_config.eos_token_id
        for ids in (each.tolist() for each in fit(model, tokenizer, prompts).ids):
            limit = {"max_new_tokens": prompts[0].max_new_tokens, "do_sample": False}
            new = model.generate(torch.tensor([ids]), **limit)[0, len(ids) :].tolist()
            end = next((place for place, token in enumerate(new) if token in ends), len(new))
            found.append(completion_of(tokenizer, ids, new[:end]))
    return found


def bits_alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """Return the bits of each reference after its text, each in a forward pass of its own."""
    found = []
    for text, reference in zip(TEXTS, REFERENCES, strict=True):
        ids, start = tokenizer(text + reference)["input_ids"], len(tokenizer(text)["input_ids"])
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, start - 1 : -1].float()
        found.append(F.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum").item() / math.log(2))
    return found


def as_base(model_type: str) -> str:
    """Return "yes" where a type, composed with itself, passes the self-check, or why it is refused."""
    anchor, aug = tiny_model(model_type), tiny_model(model_type, seed=2)
    try:
        check_composition(compose(anchor, aug, every=1))
    except UserError as error:
        return _refused(anchor, error)
    return "yes"


def own_tokenizer_as(model: PreTrainedModel, base: str) -> str:
    """Return how a type reads as an aug with a tokenizer of its own, or why not; a dash where it is no base."""
    if base != "yes":
        return "-"
    if gaps := why_no_gaps(model):
        return f"no: {_short(gaps)}"
    if not (reason := why_no_own_masks(model)):
        return "own"
    return f"no: {_short(reason)}" if shortest_reach(model) else f"chunks: {_short(reason)}"


def _short(reason: str) -> str:
    return re.sub(r" \([^)]*\)", "", reason).removeprefix("it ").replace("|", "\\|")


def completing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return which prompts are completed together, as each is alone, or why none is.

    Raises:
        ValueError: completions differ from those of each prompt alone.
    """
    try:
        found, reading = completions(model, tokenizer, asked()), reading_of(model, tokenizer)
    except UserError as error:
        return _refused(model, error)
    if found != (expected := completions_alone(model, tokenizer, asked())):
        raise ValueError(f"{type(model).__name__}, read in {reading}: {found}, but alone {expected}")
    rows = {"padded": "padded", "equal": "equal lengths", "alone": "one at a time"}[reading.together]
    return rows + (", caches" if reading.most_places else "")


def likelihoods(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return "yes" where the bits of references in batches are those of each alone, or why they are refused.

    Raises:
        ValueError: they differ.
    """
    try:
        found = dict(bits_of(model, tokenizer, TEXTS, REFERENCES, 3))
    except UserError as error:
        return _refused(model, error)
    for place, bits in enumerate(bits_alone(model, tokenizer)):
        if not math.isclose(found[place], bits, rel_tol=1e-4):
            raise ValueError(f"{type(model).__name__}: {found[place]} bits of {REFERENCES[place]!r}, but alone {bits}")
    return "yes"


def _refused(model: PreTrainedModel, error: UserError) -> str:
    """Return in a few words why a model, whose class stands in a column of its own, is refused.

    Raises:
        ValueError: the error is not one line.
    """
    message = str(error)
    if not message or "\n" in message:
        raise ValueError(f"not one line: {message!r}") from error
    name = type(model).__name__
    who = rf"^(self-check: |bits_per_byte: )?(the anchor, )?(an? )?{name},?:?( with {name})? (cannot be composed: )?"
    told = re.sub(who, "", message).removeprefix("it ")
    told = re.sub(r" \((?!\d|batch)[^)]*\)", "", told)
    return "no: " + re.split(r"; |, which |, so |: models ", told)[0].replace("|", "\\|")


def table(model_type: str) -> str:
    """Return the row of a type.

    Raises:
        ValueError: it does neither work nor end with one line.
    """
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    name = name if isinstance(name, str) else name[0]
    if model_type in WITHOUT_TINY_MODEL:
        return f"| {model_type} | {name} | not tried: {WITHOUT_TINY_MODEL[model_type]} | | | |"
    model, tokenizer = tiny_model(model_type), word_tokenizer()
    base = as_base(model_type)
    cells = base, completing(model, tokenizer), likelihoods(model, tokenizer), own_tokenizer_as(model, base)
    return f"| {model_type} | {type(model).__name__} | {' | '.join(cells)} |"


def stated(page: str) -> dict[str, list[str]]:
    """Return the cells of each type's row on a page: its class, as a base, its completions, its likelihoods."""
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows if row[0] != "model type"}


def page() -> str:
    """Return docs/model-types.md."""
    rows = [table(model_type) for model_type in model_types()]
    tried = [cells for cells in stated("\n".join(rows)).values() if len(cells) == 5]
    bases, completed, likely = ([not cells[column].startswith("no: ") for cells in tried] for column in (1, 2, 3))
    head = HEAD.format(
        calmctl=__version__,
        version=transformers.__version__,
        types=len(tried),
        bases=sum(bases),
        own=[cells[4] for cells in tried].count("own"),
        completed=sum(completed),
        likely=sum(likely),
    )
    return head + "\n".join(rows)


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    with redirect_stdout(sys.stderr):  # some models print
        text = page()
    print(text)
