"""Compose two models in Python, train the bridges on sentence pairs, store them, and translate.

    python examples/compose.py HuggingFaceTB/SmolLM2-135M-Instruct google/gemma-3-270m

Both arguments are hub ids or folders; the models may differ in architecture and tokenizer. A dozen pairs are enough to
see the loss fall, not to learn a language: docs/two-models.md trains on thousands.
"""

import argparse

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from calmctl import ComposedModelForCausalLM, compose

PAIRS = [
    ("Wo ist der Bahnhof?", "Where is the station?"),
    ("Das Wasser ist kalt.", "The water is cold."),
    ("Sie liest jeden Abend.", "She reads every evening."),
    ("Wir haben keine Zeit.", "We have no time."),
    ("Der Hund schläft.", "The dog is asleep."),
    ("Morgen wird es regnen.", "It will rain tomorrow."),
    ("Ich suche meinen Schlüssel.", "I am looking for my key."),
    ("Das Fenster steht offen.", "The window is open."),
]
PROMPT = "German: {}\nEnglish:"
NO_LOSS = -100


def row(tokenizer: PreTrainedTokenizerBase, german: str, english: str) -> dict[str, torch.Tensor]:
    """Return the ids and labels of one pair, each (1, seq); only the English sentence is learned."""
    prompt = tokenizer(PROMPT.format(german)).input_ids
    answer = tokenizer(f" {english}\n", add_special_tokens=False).input_ids
    labels = [NO_LOSS] * len(prompt) + answer
    return {"input_ids": torch.tensor([prompt + answer]), "labels": torch.tensor([labels])}


def train(model: ComposedModelForCausalLM, rows: list[dict[str, torch.Tensor]], steps: int, rate: float) -> None:
    """Train the bridges, one pair a step; the models they join never change."""
    model.calibrate([{"input_ids": each["input_ids"]} for each in rows])
    optimizer = torch.optim.AdamW(model.composition_parameters().values(), lr=rate)
    model.train()
    for step in range(steps):
        loss = model(**rows[step % len(rows)]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss {loss.item():.3f}")
    model.eval()


def main() -> None:
    """Compose, train, store, load again and translate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("anchor", help="the large, general model, which writes the text")
    parser.add_argument("aug", help="the specialised model, which the anchor learns to read")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--out", default="runs/example")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(arguments.anchor)
    # Until it is trained, the composition computes exactly what the anchor computes.
    model = compose(arguments.anchor, arguments.aug, rotary=True, recency=True)
    train(model, [row(tokenizer, *pair) for pair in PAIRS], arguments.steps, arguments.lr)
    # Stores the bridges and where the two models are, not the models.
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    model = ComposedModelForCausalLM.from_pretrained(arguments.out).eval()
    prompt = tokenizer(PROMPT.format("Das Haus ist alt."), return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    print(tokenizer.decode(answer[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
