"""Speed of our generation against lm-evaluation-harness's `hf` model: same model, prompts and batch size.

    python benchmarks/generation.py [--quick] [--preset llama] [--device cuda] [--json FILE] [--only zero-shot,...]

Both sides complete the same prompts greedily, with the same batch size, limit of new tokens and stop strings, in turns
(see measure.py); ours tokenizes, generates, decodes and cuts at stop strings, as `HFLM.generate_until` does. The value
is our samples per second over theirs; the target is at least 1. Each prompt asks for 128 new tokens (4 in `shared`);
the tasks ask for 64 to 1024. Weights are random, so nearly every completion runs to its limit, except in `stops`.
`shared` compares our own engine with and without shared prefixes (seconds without over seconds with); `MIN_TOKENS` in
calmctl/inference/growing_cache.py is chosen by it. `lengths` compares batches that are finished one by one with a batch
whose free places the next prompts take.

    zero-shot  questions of 20 to 60 tokens
    few-shot   the same after five worked examples, 400 tokens shared by all questions
    stops      four stop strings, one of which comes up in a completion sooner or later
    shared     a prefix of 8 to 512 tokens before each question
    lengths    answers of very different lengths, and of one length (`uniform`)
"""

import argparse
import json
import logging
import operator
import os
import platform
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from measure import cpu_name, interleaved, ratio, seconds
from shapes import PRESETS, base, composed
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from calmctl.inference.generation import Engine
from calmctl.inference.prompt import fit
from calmctl.inference.settings import Decoding
from evals import Request

Row = dict[str, Any]
PREFIXES = (8, 16, 32, 64, 128, 256, 512)


def tokenizer_of(size: int) -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer of invented words, as fast and with as many tokens as a real one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = random.Random(0)
    words = {"".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=letters.randint(2, 7))) for _ in range(3 * size)}
    spaced = [f"\u0120{word}" for word in sorted(words)][: size - len(alphabet) - 1]
    vocabulary = {token: place for place, token in enumerate(["</s>", *alphabet, *spaced])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="</s>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


class Texts:
    """Writes text of a given number of tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.words = sorted(word.replace("\u0120", " ") for word in tokenizer.get_vocab() if word.startswith("\u0120"))
        self.choice = random.Random(1)

    def __call__(self, length: int) -> str:
        """Return a text of this many tokens."""
        return "".join(self.choice.choices(self.words, k=length))


def prompts(case: str, texts: Texts, count: int, new: int) -> list[Request]:
    """Return the prompts of a case."""
    shots = tuple(texts(79) + "\n" for _ in range(5)) if case == "few-shot" else ()
    # Random models write all words equally often, so a stop string that is part of many words comes up soon.
    stop = ("\nclass", "\ndef", "se", "ti") if case == "stops" else ("\n\n\n",)
    return [Request("", texts(texts.choice.randint(20, 60)), new, stop, shots) for _ in range(count)]


def ours(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: list[Request],
    batch: int,
    share: bool | None = None,
    temperature: float = 0.0,
) -> list[str]:
    """Return our completions."""
    decoding = Decoding(batch_size=batch, temperature=temperature)
    engine = Engine(model, tokenizer, decoding, share_prefixes=share)
    samples = [sample for part in engine.generate(fit(model, tokenizer, asked)) for sample in part]
    return [sample.text for sample in sorted(samples, key=lambda sample: sample.prompt_index)]


def beside_lm_eval(preset_name: str, device: str, cases: list[str]) -> Iterator[Row]:
    """Measure both sides on every case and model."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    preset, quick = PRESETS[preset_name], preset_name == "quick"
    batch = 4 if quick else 16
    count, new = (8, 8) if quick else (48, 128)
    # The quick shapes have too few tokens for a byte-level tokenizer.
    vocabulary = 2000 if quick else preset.vocabularies[0]
    tokenizer = tokenizer_of(vocabulary)
    anchor, aug = (base(preset, role, vocabulary, "float32", device) for role in ("anchor", "aug"))
    for name, model in {"plain": anchor, "composed": composed(preset, anchor, aug)}.items():
        theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=2048, device=device)
        for case in cases:
            asked = prompts(case, Texts(tokenizer), count, new)
            settings = {"until": list(asked[0].stop), "max_gen_toks": asked[0].max_new_tokens, "do_sample": False}
            instances = [
                Instance("generate_until", {}, (prompt.text, settings), place) for place, prompt in enumerate(asked)
            ]
            found, expected = ours(model, tokenizer, asked, batch), theirs.generate_until(instances, disable_tqdm=True)
            times = interleaved(
                {
                    "lm-eval": lambda theirs=theirs, ask=instances: theirs.generate_until(ask, disable_tqdm=True),
                    "ours": lambda model=model, ask=asked: ours(model, tokenizer, ask, batch),
                },
                1 if quick else 3,
                device,
            )
            value = ratio(times, "lm-eval", "ours")
            taken = seconds(times)
            yield {
                "case": case,
                "model": name,
                "value": round(value, 3),
                "target": 1.0,
                "met": value >= 1.0,
                "samples_per_second": {side: round(count / taken[side], 2) for side in taken},
                "same_texts": sum(one == other for one, other in zip(found, expected, strict=True)) / count,
                "prompts": count,
                "batch_size": batch,
                "max_new_tokens": asked[0].max_new_tokens,
                "seconds": taken,
            }


def sharing(preset_name: str, device: str) -> Iterator[Row]:
    """Measure the speed-up from sharing prefixes of different lengths."""
    preset, quick, vocabulary = PRESETS[preset_name], preset_name == "quick", 2000
    tokenizer = tokenizer_of(vocabulary)
    anchor, aug = (base(preset, role, vocabulary, "float32", device) for role in ("anchor", "aug"))
    count, batch = (4, 2) if quick else (16, 8)
    for name, model in {"plain": anchor, "composed": composed(preset, anchor, aug)}.items():
        for length in PREFIXES[:2] if quick else PREFIXES:
            texts = Texts(tokenizer)
            shots = (texts(length),)
            asked = [replace(prompt, shots=shots) for prompt in prompts("zero-shot", texts, count, 4)]
            variants = {
                side: lambda model=model, ask=asked, share=share: ours(model, tokenizer, ask, batch, share)
                for side, share in (("each", False), ("shared", True))
            }
            times = interleaved(variants, 1 if quick else 3, device)
            value = ratio(times, "each", "shared")
            details = {"prefix": length, "prompts": count, "batch_size": batch, "max_new_tokens": 4}
            yield {"case": "shared", "model": name, "value": round(value, 3), **details, "seconds": seconds(times)}


def filling(preset_name: str, device: str) -> Iterator[Row]:
    """Measure the speed-up from filling the places of completions that ended, and check that no text changes."""
    preset, quick, vocabulary = PRESETS[preset_name], preset_name == "quick", 2000
    tokenizer = tokenizer_of(vocabulary)
    anchor, aug = (base(preset, role, vocabulary, "float32", device) for role in ("anchor", "aug"))
    count, batch, new = (8, 4, 64) if quick else (64, 16, 192)
    for name, model in {"plain": anchor, "composed": composed(preset, anchor, aug)}.items():
        # Sampled words hold one of these pairs of letters every fifty tokens.
        for case, stop in (("lengths", ("se", "ti", "ra", "lo")), ("uniform", ("\n\n\n",))):
            asked = [replace(each, stop=stop) for each in prompts("zero-shot", Texts(tokenizer), count, new)]
            asked.sort(key=lambda each: -len(tokenizer(each.text)["input_ids"]))
            parts = [asked[start : start + batch] for start in range(0, count, batch)]
            variants: dict[str, Callable[[], list[str]]] = {
                "one by one": lambda model=model, parts=parts: [
                    text for part in parts for text in ours(model, tokenizer, part, batch, temperature=1.0)
                ],
                "filled": lambda model=model, asked=asked: ours(model, tokenizer, asked, batch, temperature=1.0),
            }
            one, other = (variant() for variant in variants.values())
            same = sum(map(operator.eq, one, other)) / count
            times = interleaved(variants, 1 if quick else 3, device)
            details = {"same_texts": same, "prompts": count, "batch_size": batch, "max_new_tokens": new}
            lengths = sorted(len(tokenizer(text)["input_ids"]) for text in other)
            details |= {"median_length": lengths[count // 2], "longest": lengths[-1]}
            value = round(ratio(times, "one by one", "filled"), 3)
            yield {"case": case, "model": name, "value": value, **details, "seconds": seconds(times)}


def main() -> None:
    """Print a table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = ["zero-shot", "few-shot", "stops", "shared", "lengths"]
    parser.add_argument("--quick", action="store_true", help="seconds: tiny shapes, only to see that it runs")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", type=lambda text: text.split(","), default=cases, help=f"of {', '.join(cases)}")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    preset = "quick" if arguments.quick else arguments.preset
    chosen = [case for case in arguments.only if case not in ("shared", "lengths")]
    rows: list[Row] = []
    print(f"{'case':<11}{'model':<10}{'lm-eval/s':>10}{'ours/s':>10}{'value':>8}{'same':>7}")
    for measured in (
        beside_lm_eval(preset, arguments.device, chosen) if chosen else [],
        sharing(preset, arguments.device) if "shared" in arguments.only else [],
        filling(preset, arguments.device) if "lengths" in arguments.only else [],
    ):
        for row in measured:
            rows.append(row)
            rates = row.get("samples_per_second", {})
            case = row["case"] + (f" {row['prefix']}" if "prefix" in row else "")
            sides = "".join(f"{rates[side]:>10.2f}" if rates else f"{'':>10}" for side in ("lm-eval", "ours"))
            same = f"{row['same_texts']:>7.0%}" if "same_texts" in row else f"{'':>7}"
            verdict = "" if "met" not in row else "  met" if row["met"] else "  MISSED"
            print(f"{case:<11}{row['model']:<10}{sides}{row['value']:>8.3f}{same}{verdict}", flush=True)
    if arguments.json:
        environment = {
            "device": torch.cuda.get_device_name() if arguments.device != "cpu" else cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        arguments.json.write_text(json.dumps({"environment": environment, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
