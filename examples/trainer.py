"""Train bridges with transformers' own Trainer on rows of a JSONL file with `prompt` and `completion`.

    python examples/trainer.py ANCHOR AUG pairs.jsonl --steps 100 --out runs/trainer

A composed model is an ordinary model to the Trainer: it optimises what asks for gradients, which are the bridges, and
its checkpoints hold only these. `calmctl compose` does more (validation, resuming to the bit, batches by length); this
is for those who have a Trainer script already.
"""

import argparse
import json
from pathlib import Path

from transformers import AutoTokenizer, DataCollatorForSeq2Seq, PreTrainedTokenizerBase, Trainer, TrainingArguments

from calmctl import compose


def examples(file: Path, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, list[int]]]:
    """Return ids and labels of every row; prompts have no loss."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = tokenizer(row["prompt"]).input_ids
        answer = tokenizer(row["completion"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        found.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return found


def main() -> None:
    """Compose two models and train the bridges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("anchor")
    parser.add_argument("aug")
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--out", default="runs/trainer")
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.anchor)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = examples(arguments.data, tokenizer)
    collate = DataCollatorForSeq2Seq(tokenizer)
    model = compose(arguments.anchor, arguments.aug, rotary=True, recency=True)
    model.calibrate([{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in [collate(rows[:32])]])
    settings = TrainingArguments(
        arguments.out,
        max_steps=arguments.steps,
        learning_rate=arguments.lr,
        per_device_train_batch_size=8,
        logging_steps=10,
        report_to="none",
    )
    Trainer(model, settings, train_dataset=rows, data_collator=collate).train()
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
