"""Pairs of models: check without weights whether augs can be composed with an anchor, and how they would read."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from calmctl.environment import Check
from calmctl.errors import UserError
from calmctl.modeling.bases.sources import base_config, find_tokenizer, quiet_libraries
from calmctl.modeling.composition import CheckedParts, check_parts
from calmctl.modeling.options import SEGMENTATIONS
from calmctl.modeling.own_masks import why_no_own_masks
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.tokenizers.own import OwnTokenizer
from calmctl.modeling.tokenizers.segmentation import Segmenter
from calmctl.training.aug_examples import reading_facts, share_replaced
from calmctl.training.configs import ComposeConfig
from calmctl.training.mixing import load_datasets

# Probe texts, of the kinds that tokenizers cut most differently.
PROBE = {
    "English": "The translator's summary was unbelievably long: it took 45 minutes, and nobody finished it.\n",
    "Python": "def total(values: list[float]):\n    if not values:\n        return 0.0\n    return sum(values)\n",
    "numbers": "12 + 345 = 357; 3.14159 * 2 = 6.28318; 2024-11-05 09:30:00; 1,000,000\n",
    "German": "Übermäßig lange Wörter wie Donaudampfschifffahrtsgesellschaft kommen selten vor.\n",
    "Russian": "Переводчик долго искал подходящее слово, но так и не нашёл его.\n",
    "Arabic": "كان الكتاب طويلا جدا ولم يقرأه أحد حتى النهاية.\n",
    "Hindi": "अनुवादक ने सही शब्द खोजने में बहुत समय लगाया।\n",
    "Chinese": "译者花了很长时间寻找合适的词，最后还是没有找到。\n",
    "emoji": "👩🏽\u200d🚀 🇯🇵 ❤️ 🙂🙂\n",
}  # fmt: skip


def pair_checks(config: ComposeConfig) -> Iterator[Check]:
    """Yield checks of whether the anchor and each aug can be composed, and of how the aug reads.

    Args:
        config: names anchor and augs; its dataset, if any, is read as well.

    Raises:
        UserError: the dataset cannot be read.
    """
    quiet_libraries()
    how = {"trust_remote_code": config.trust_remote_code}
    try:
        anchor, ours = base_config(config.anchor, **how), find_tokenizer(config.anchor, **how)
    except UserError as error:
        yield Check("anchor", "refused", str(error))
        return
    yield Check("anchor", "ok", f"{config.anchor}: {anchor.model_type}")
    several = len(config.augs) > 1
    for index, source in enumerate(config.augs):
        name = f"aug {index}" if several else "aug"
        try:
            theirs = find_tokenizer(source, **how)
            parts = check_parts(
                config.anchor, [source], config.aug_reads, how, config.segmentation, config.markers,
                [ours, theirs], config.attention,
            )  # fmt: skip
        except UserError as error:
            yield Check(name, "refused", f"{source}: {error}")
            continue
        yield Check(name, "ok", f"{source}: {parts.shapes[1].config.model_type}")
        yield from _reading_checks(name, theirs, parts, config)


def aug_tokens_per_anchor_token(tokenizer: PreTrainedTokenizerBase, segmenter: Segmenter, text: str) -> float:
    """Return how many tokens an aug is fed per anchor token, including those that are replaced later."""
    (ids,) = prompt_ids(tokenizer, [text])
    found, _ = segmenter.read(ids)
    return len(found.ids) / max(len(ids), 1)


def _reading_checks(
    name: str, theirs: PreTrainedTokenizerBase | None, parts: CheckedParts, config: ComposeConfig
) -> Iterator[Check]:
    (own,), (kind,), tokenizer = parts.own, parts.kinds, parts.tokenizer
    if own is None:
        if tokenizer is None or theirs is None:
            whose = "the anchor" if tokenizer is None else "the aug"
            yield Check(f"{name} tokenizer", "warning", f"not known: {whose} has none; taken to be the same")
            return
        yield Check(f"{name} tokenizer", "ok", "the anchor's; tokens are read as they are")
        return
    yield Check(f"{name} tokenizer", "ok", f"its own: {own.difference}")
    for warning in own.warnings:
        yield Check(f"{name} tokenizer", "warning", warning)
    reason = why_no_own_masks(parts.shapes[1]) if kind == "chunks" and config.segmentation != "chunks" else ""
    yield Check(f"{name} reads", "ok", f"{SEGMENTATIONS[kind]}{f', for {reason}' if reason else ''}")
    yield Check(f"{name} markers", "ok", _markers(own))
    assert tokenizer is not None  # otherwise they could not differ
    segmenter = own.segmenter(kind)
    amounts = {what: aug_tokens_per_anchor_token(tokenizer, segmenter, text) for what, text in PROBE.items()}
    shown = ", ".join(f"{what} {amount:.2f}" for what, amount in amounts.items())
    yield Check(f"{name} tokens", "ok", f"per token of the anchor: {shown}")
    if config.dataset:
        yield Check(f"{name} tokens", "ok", _of_data(tokenizer, segmenter, config))


def _markers(own: OwnTokenizer) -> str:
    """Say in words how special tokens are read."""
    opening = f"{len(own.opening)} token{'s' * (len(own.opening) != 1)} of its own before a text" if own.opening else ""
    mapped = f"{len(own.markers)} of the anchor's are read as the aug's" if own.markers else ""
    return "; ".join(filter(None, [opening, mapped, "the anchor's other special tokens end a piece of text"]))


def _of_data(tokenizer: PreTrainedTokenizerBase, segmenter: Segmenter, config: ComposeConfig) -> str:
    examples = load_datasets(config.datasets, tokenizer, config.train, columns=config.columns)
    (facts,) = reading_facts(examples, [segmenter])
    assert facts is not None
    return (
        f"per token of the anchor: {', '.join(config.datasets)} {facts['aug_tokens_per_anchor_token']:.2f}"
        f"{share_replaced(facts)}"
    )


def measured_aug_tokens(tokenizer: PreTrainedTokenizerBase, segmenter: Segmenter) -> float:
    """Return how many tokens an aug reads per anchor token, over all probe texts."""
    return aug_tokens_per_anchor_token(tokenizer, segmenter, "".join(PROBE.values()))
