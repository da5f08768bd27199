"""Show what a composition changed: the bits that each token of a completion costs the anchor, and the composition.

    python examples/what_changed.py runs/example "German: Das Wasser ist kalt.\\nEnglish:" " The water is cold."

Negative changes are tokens that the composition expects more than the anchor does; those that depend on what the aug
knows stand out. Prompts are left out: bridges are trained on completions.
"""

import argparse
import math

import torch
from transformers import AutoTokenizer

from calmctl import ComposedModelForCausalLM


@torch.no_grad()
def bits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Return the bits of every token but the first, (seq - 1,); `ids` is (1, seq)."""
    logits = model(input_ids=ids).logits[0, :-1].float()
    chosen = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return -chosen / math.log(2)


def main() -> None:
    """Print a line per token, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a composed model")
    parser.add_argument("prompt")
    parser.add_argument("completion")
    arguments = parser.parse_args()
    model = ComposedModelForCausalLM.from_pretrained(arguments.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    prompt = tokenizer(arguments.prompt.replace("\\n", "\n")).input_ids
    completion = tokenizer(arguments.completion, add_special_tokens=False).input_ids
    ids = torch.tensor([prompt + completion])
    alone, composed = (bits(each, ids)[-len(completion) :] for each in (model.anchor, model))
    print(f"{'token':<16}{'anchor':>8}{'composed':>10}{'change':>8}")
    for token, before, after in zip(completion, alone.tolist(), composed.tolist(), strict=True):
        print(f"{tokenizer.decode([token])!r:<16}{before:>8.2f}{after:>10.2f}{after - before:>+8.2f}")
    print(f"{'bits in all':<16}{alone.sum():>8.1f}{composed.sum():>10.1f}{composed.sum() - alone.sum():>+8.1f}")


if __name__ == "__main__":
    main()
