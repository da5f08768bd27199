"""Streaming: pieces that make up the completion."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import complete
from calmctl.inference.text import TextStream
from data_builders.kv.word_tokenizer import build_word_tokenizer
from evals import Request
from tests.models import composed, llama


@pytest.mark.parametrize("model", [lambda: llama(seed=4), lambda: composed(norm=True)], ids=["plain", "composed"])
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(temperature=1.0, seed=3)], ids=["greedy", "sampling"])
def test_pieces_are_the_completion_and_come_one_by_one(model, decoding):
    tokenizer = build_word_tokenizer([f"k{chr(97 + i)}" for i in range(22)], ["substitute:", "solve:"])
    pieces = []
    text = complete(model(), tokenizer, [Request("", "solve: 1 + 2 =", 12)], decoding, on_text=pieces.append)[0]
    assert "".join(pieces) == text
    assert len(pieces) > 1


def test_a_character_is_passed_on_when_all_its_bytes_are_there():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({byte: index for index, byte in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    prompt, completion = "a", " 5 €!"
    ids = tokenizer(prompt + completion)["input_ids"]
    pieces = []
    stream = TextStream(tokenizer, pieces.append)
    stream.put(torch.tensor([ids[:1]]))
    for token in ids[1:]:
        stream.put(torch.tensor([token]))
    stream.end()
    assert pieces == [" ", "5", " ", "€", "!"]
