"""Numbers that are none: a model that computes NaN or infinity is stopped with one line, not scored."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calmctl.errors import CalmctlError
from calmctl.evaluation.scoring import write_scores
from calmctl.inference.generation import complete
from calmctl.inference.settings import Decoding
from calmctl.training.safeguards import MOST_SKIPPED, DivergenceWatch
from data_builders.kv.tokenizers import build_word_tokenizer
from evals import Request, Scores
from tests.models import composed, llama
from tests.scored import bits_of

TOKENIZER = build_word_tokenizer(["ab", "cd", "ef"], ["solve:"])
DECODINGS = {
    "greedy": Decoding(), "one by one": Decoding(batch_size=1), "beams": Decoding(num_beams=2),
    "sampling": Decoding(temperature=0.7, top_p=0.9),
}  # fmt: skip


def spoiled(model, value: float):
    """Return a model that has no numbers after the word `cd`."""
    base = getattr(model, "anchor", model)
    with torch.no_grad():
        base.get_input_embeddings().weight[TOKENIZER("cd", add_special_tokens=False)["input_ids"][0]] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("decoding", DECODINGS.values(), ids=DECODINGS)
@pytest.mark.parametrize("make", [llama, composed])
def test_a_prompt_without_numbers_is_named_and_others_are_answered(make, decoding, value):
    model = spoiled(make(), value)
    # So few that the word is not drawn either.
    good, bad = (Request(f"task/{word}", f"solve: {word} =", 5) for word in ("ab", "cd"))
    said = rf"^prompt task/cd: the logits of {type(model).__name__} are not finite \(float32 on cpu\); "
    with pytest.raises(CalmctlError, match=said):
        complete(model, TOKENIZER, [good, bad, good], decoding)
    assert complete(model, TOKENIZER, [good], decoding) == complete(make(), TOKENIZER, [good], decoding)
    with pytest.raises(CalmctlError, match="^prompt 2: the bits of the reference of"):
        list(bits_of(model, TOKENIZER, [good.text, bad.text], [" 3", " 3"], decoding.batch_size))


def test_half_precision_that_overflows_says_so():
    model = llama().half()
    with torch.no_grad():
        model.lm_head.weight.mul_(6e4)
        model.model.norm.weight.mul_(1e3)
    with pytest.raises(CalmctlError, match=r"\(float16 on cpu\); load it in bfloat16 or float32$"):
        complete(model, TOKENIZER, [Request("", "solve: ab =", 4)], Decoding())


@pytest.mark.parametrize("scores, name", [
    (Scores({"chrf1": math.nan}, 1), "metrics.chrf1 is nan"),
    (Scores({"chrf1": 1.0}, 1, {"by_language": {"de": {"chrf1": math.inf}}}), "breakdown.by_language.de.chrf1 is inf"),
])  # fmt: skip
def test_a_figure_that_is_no_number_is_named(scores, name):
    task = SimpleNamespace(score=lambda *_: scores)
    with pytest.raises(CalmctlError, match=name):
        write_scores(None, None, task, [], {}, {})


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_gradient_that_is_never_finite_ends_the_training(precision):
    """In fp16 the loss stays finite: the steps are skipped, and nothing would be learned."""
    watch = DivergenceWatch(numbers=precision)
    for step in range(1, 2 * MOST_SKIPPED):
        watch.begin(step, np.array([step]))
        watch.add_loss(torch.tensor(1.0))
        watch.add_gradient_norm(torch.tensor(1.0 if step == 5 else math.inf))
        if step > MOST_SKIPPED + 5:
            with pytest.raises(CalmctlError, match=rf"step {MOST_SKIPPED + 5}: .* times in a row .* in {precision};"):
                watch.check_losses()
            return
        watch.check_losses()
