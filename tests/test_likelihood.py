"""Bits for references: those of each text alone, whatever the batch, the family or the tokenizer's boundaries."""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from calmctl.cli.main import main
from calmctl.errors import CalmctlError, UserError
from calmctl.inference import likelihood
from calmctl.inference.generation import Engine
from calmctl.inference.likelihood import encoded_pairs
from calmctl.inference.settings import Decoding
from tests.families import FAMILIES
from tests.models import composed, llama
from tests.scored import bits_of
from tests.task_data import byte_tokenizer, write_data, write_models

PROMPTS = ["a b ", "the", "longer than the others: ", "x"]
TEXTS = [" c", " word that is long", "é", " y z"]


def reads(model, tokenizer):
    """Return a model with an embedding for every token."""
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return model


def alone(model, tokenizer, prompt: str, text: str) -> float:
    """Return the bits of a text by itself, without batches."""
    ids, start = tokenizer(prompt + text)["input_ids"], len(tokenizer(prompt)["input_ids"])
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, start - 1 : -1].float()
    return F.cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum").item() / math.log(2)


@pytest.mark.parametrize("name", ["Llama", "GPT-2", "BLOOM", "composed"])
def test_bits_are_those_of_each_text_alone(name):
    tokenizer = byte_tokenizer()
    if name == "composed":
        model = composed(*(reads(llama(seed=seed), tokenizer) for seed in (1, 2)))
    else:
        model = reads(FAMILIES[name](1), tokenizer)
    model.eval()
    expected = [alone(model, tokenizer, *pair) for pair in zip(PROMPTS, TEXTS, strict=True)]
    for batch_size in (1, 3, 8):
        found = dict(bits_of(model, tokenizer, PROMPTS, TEXTS, batch_size))
        assert [found[place] for place in range(4)] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("build", [lambda: llama(seed=1), composed], ids=["plain", "composed"])
def test_texts_that_differ_in_their_last_token_only_are_read_once(build, monkeypatch):
    tokenizer, read = byte_tokenizer(), []
    model = build()
    for base in model.bases() if hasattr(model, "bases") else [model]:
        reads(base, tokenizer)
    model.eval()
    pairs = [
        ("is it? ", "n"),
        ("is it? ", "y"),
        ("is it so? ", "n"),
        ("is it? ", "yn"),
        ("is it", "? y"),
        ("is it? ", "n"),
    ]
    expected = [alone(model, tokenizer, *pair) for pair in pairs]
    labelled = likelihood._labelled
    monkeypatch.setattr(likelihood, "_labelled", lambda *args: read.append(len(args[1])) or labelled(*args))
    prompts, texts = zip(*pairs, strict=True)
    for batch_size in (1, 8):
        bits_of(model, tokenizer, prompts, texts, batch_size)  # what a model can do is tried once
        read.clear()
        found = dict(bits_of(model, tokenizer, prompts, texts, batch_size))
        assert [found[place] for place in range(len(pairs))] == pytest.approx(expected, rel=1e-4)
        assert sum(read) == 4  # "is it? n", read for "y" too, stands apart from "is it" with "? y" as its text


def test_logits_are_scored_in_pieces(monkeypatch):
    tokenizer = byte_tokenizer()
    model = reads(llama(seed=1), tokenizer).eval()
    expected = dict(bits_of(model, tokenizer, PROMPTS, TEXTS, 3))
    sizes, cross_entropy = [], F.cross_entropy
    monkeypatch.setattr(likelihood, "CHUNK_ELEMENTS", 5 * len(tokenizer))
    monkeypatch.setattr(
        F, "cross_entropy", lambda x, *args, **how: sizes.append(len(x)) or cross_entropy(x, *args, **how)
    )
    assert dict(bits_of(model, tokenizer, PROMPTS, TEXTS, 3)) == expected
    assert max(sizes) == 5 and len(sizes) > 4


def test_batches_of_texts_are_halved_when_memory_is_short():
    tokenizer = byte_tokenizer()
    model = reads(llama(seed=1), tokenizer).eval()
    expected = dict(Engine(model, tokenizer, Decoding(batch_size=4)).bits_of(PROMPTS, TEXTS))
    seen, most = [], 1

    def forward(_module, _args, given):
        seen.append(len(given["input_ids"]))
        if seen[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model.register_forward_pre_hook(forward, with_kwargs=True)
    assert dict(Engine(model, tokenizer, Decoding(batch_size=4)).bits_of(PROMPTS, TEXTS)) == pytest.approx(expected)
    assert seen == [4, 2, 1, 1, 1, 1]
    most = 0
    with pytest.raises(CalmctlError, match="out of memory with a single text of [0-9]+ tokens"):
        list(Engine(model, tokenizer, Decoding(batch_size=4)).bits_of(PROMPTS, TEXTS))


def test_an_aug_that_is_an_encoder_reads_prompts_only():
    tokenizer = byte_tokenizer()
    model = composed(*(reads(llama(seed=seed), tokenizer) for seed in (1, 2)), aug_reads="prompt").eval()
    found = dict(bits_of(model, tokenizer, PROMPTS, TEXTS, 4))
    for place, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        ids = torch.tensor([tokenizer(prompt + text)["input_ids"]])
        labels = ids.clone()
        labels[:, : len(tokenizer(prompt)["input_ids"])] = -100
        with torch.no_grad():  # the loss it is trained on
            nats = model(ids, labels=labels).loss.item() * int((labels != -100).sum())
        assert found[place] == pytest.approx(nats / math.log(2), rel=1e-4)


def test_what_exceeds_the_context_is_one_clear_error():
    tokenizer = byte_tokenizer()
    model = reads(llama(seed=1), tokenizer)
    with pytest.raises(UserError, match=r"likelihoods: 1 of 2 prompts exceed the model's context"):
        list(bits_of(model, tokenizer, ["a", "b" * 9999], ["c", "d"], 2))


def test_an_evaluation_measures_them_for_each_language(tmp_path, capsys):
    data, models = write_data(tmp_path / "data"), write_models(tmp_path)
    common = ["--model", str(models["plain"]), "--limit", "2", "decoding.max_new_tokens=2", "bits_per_byte=true"]
    out = tmp_path / "flores"
    flores = ["eval", "flores", "--data", str(data / "flores"), "--languages", "fra", "--out", str(out)]
    assert main([*flores, *common, "--shots", "1"]) == 0
    result = json.loads((out / "metrics.json").read_text())
    assert result["metrics"]["bits_per_byte"] == result["breakdown"]["bits_per_byte"]["fra_Latn"] > 1
    assert main(["eval", "kv", "--data", str(data / "kv"), "--out", str(tmp_path / "kv"), *common]) == 2
    assert "bits_per_byte: the task kv has no references" in capsys.readouterr().err


def test_references_that_do_not_fit_are_told_before_anything_is_generated(tmp_path, capsys):
    data, models = write_data(tmp_path / "data"), write_models(tmp_path)
    english = data / "flores" / "devtest" / "eng_Latn.devtest"
    english.write_text("".join(f"{line} {'long ' * 9999}\n" for line in english.read_text().splitlines()))
    out = tmp_path / "flores"
    command = ["eval", "flores", "--model", str(models["plain"]), "--data", str(data / "flores"), "--languages", "fra"]
    assert main([*command, "--out", str(out), "--limit", "2", "--shots", "0", "bits_per_byte=true"]) == 2
    assert "2 of 2 prompts exceed the model's context" in capsys.readouterr().err
    assert not (out / "samples.jsonl").exists()


@pytest.mark.parametrize("prompt, text", [("Answer: ", "yes"), ("def f():\n", "    return 1\n"), ("", "yes")])
def test_every_byte_of_a_text_is_scored_where_tokens_cross_the_border(prompt, text):
    merges = [("y", "e"), ("ye", "s"), ("Ġ", "yes"), ("Ċ", "Ġ"), ("ĊĠ", "Ġ"), ("ĊĠĠ", "Ġ")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["</s>", *alphabet, *map("".join, merges)])}
    crossing = Tokenizer(models.BPE(vocabulary, merges))
    crossing.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    crossing.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=crossing, eos_token="</s>")
    model = llama()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    (whole,), (start,) = encoded_pairs(model, tokenizer, [prompt], [text])
    assert start >= 1 and tokenizer.decode(whole[start:]).endswith(text)
    assert dict(bits_of(model, tokenizer, [prompt], [text], 1))[0] > 1
