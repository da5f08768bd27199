"""What a model wrote is what is read: special tokens inside of texts, stop strings as tokenizers write them, frames."""

import json
import random
import re
from itertools import product

import pytest
import torch

from calmctl.errors import UserError
from calmctl.evaluation.config import EvalConfig
from calmctl.evaluation.evaluating import run_evaluation
from calmctl.inference.generation import Engine, complete
from calmctl.inference.prompt import fit
from calmctl.inference.settings import Decoding
from calmctl.inference.text import written_otherwise
from calmctl.modeling.prompt_ids import ids_around, ids_of, prompt_ids
from data_builders.values import read_json
from evals import Request
from evals.task import before_stops
from tests.made_tokenizers import TEMPLATES, TOKENIZERS, framed, that_writes
from tests.scored import bits_of

PROMPTS = ["the st:", "bcd \n", "7: ", "[DONE] b", "Q？ ２"]


def text_without_frame(tokenizer, ids):
    frame = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return tokenizer.decode([i for i in ids if i not in frame], clean_up_tokenization_spaces=False)


def some_ids(tokenizer, chance, count):
    """Return ids of texts, of special tokens inside of them and of a beginning in the middle, none of them the end."""
    inside = [token for token in tokenizer.all_special_ids if token != tokenizer.eos_token_id]
    words = tokenizer("the st bcd: 1 e . x", add_special_tokens=False)["input_ids"]
    return [chance.choice(inside if chance.random() < 0.3 else words) for _ in range(count)]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_completion_is_what_its_tokens_add_and_ends_where_that_text_has_a_stop(name):
    chance = random.Random(name)
    tokenizer = TOKENIZERS[name]()
    for template in TEMPLATES[:2]:
        prompt = chance.choice(PROMPTS)
        framed(tokenizer, template)
        (before,) = prompt_ids(tokenizer, [prompt])
        new_ids = some_ids(tokenizer, chance, 14)
        model = that_writes(new_ids, tokenizer, len(before))
        whole = text_without_frame(tokenizer, before + new_ids)
        written = whole.removeprefix(text_without_frame(tokenizer, before))
        assert len(written) < len(whole)
        pieces = []
        free = Request("", prompt, len(new_ids) + 1)
        assert complete(model, tokenizer, [free], Decoding(), on_text=pieces.append) == [written]
        assert "".join(pieces) == written
        places = [chance.randrange(len(written) - 3) for _ in range(2)]
        for stop in ([written[place : place + chance.randint(1, 3)]] for place in places):
            searched = [*stop, *filter(None, written_otherwise(tokenizer, stop).values())]
            asked = [Request("", prompt, len(new_ids) + 1, tuple(stop))]
            decoding = Decoding(num_beams=chance.choice([1, 1, 2]))
            assert complete(model, tokenizer, asked, decoding) == [before_stops(written, searched)], stop


@pytest.mark.parametrize("name", ["byte_level", "sentencepiece", "characters"])
def test_special_tokens_are_read_where_prompts_share_what_they_begin_with(name):
    tokenizer = framed(TOKENIZERS[name](), "<s> $A")
    shots = ("the 1 b [DONE]\n", "    the 2 [DONE]\n")
    asked = [Request("", question, 20, ("[DONE]",), shots) for question in ("1", "2", "3")]
    fitted = fit(that_writes([], tokenizer, 100), tokenizer, asked)
    assert len({len(ids) for ids in fitted.ids}) == 1
    new_ids = tokenizer("b\n    c[DONE]d", add_special_tokens=False)["input_ids"]
    model = that_writes(new_ids, tokenizer, len(fitted.ids[0]))
    for share in (True, False):
        engine = Engine(model, tokenizer, Decoding(), share_prefixes=share)
        texts = [sample.text for batch in engine.generate(fitted) for sample in batch]
        assert [text.removeprefix(" ") for text in texts] == ["b\n    c"] * 3


@pytest.mark.parametrize(("name", "stop", "expected"), [
    ("byte_level", "问题：", {}),
    ("byte_level", "\n", {}),
    ("byte_level", "</s>", {}),
    ("byte_level", "<pad>", {"<pad>": None}),
    ("byte_level_nfkc", "问题：", {"问题：": "问题:"}),
    ("byte_level_nfkc", "\nＱ", {"\nＱ": "\nQ"}),
    ("sentencepiece", "问题：", {"问题：": "问题:"}),
    ("sentencepiece", " b", {}),
    ("sentencepiece", "\n\n", {}),
    ("sentencepiece", "\nＱ：", {"\nＱ：": "\nQ:"}),
    ("collapsing", "\n", {"\n": None}),
    ("collapsing", "\n\n", {"\n\n": None}),
    ("collapsing", "\nthe", {"\nthe": " the"}),
    ("collapsing", "the\n", {"the\n": "the "}),
    ("collapsing", "[DONE]", {}),
    ("collapsing", "Q<", {"Q<": None}),
    ("word_pieces", "The:", {"The:": " the :"}),
    ("word_pieces", "\n", {"\n": None}),
    ("word_pieces", "</p>", {"</p>": None}),
    ("characters", "a", {"a": None}),
    ("characters", "\nbcd", {}),
    ("words", "Question:", {"Question:": None}),
    ("words", "\nthe", {"\nthe": " \n the"}),
])  # fmt: skip
def test_stops_that_a_tokenizer_never_writes_are_told_and_searched_for_as_it_writes_them(name, stop, expected):
    tokenizer = TOKENIZERS[name]()
    assert written_otherwise(tokenizer, [stop]) == expected
    form = next(iter(expected.values()), None)
    if form is not None:
        written = tokenizer(f"b {stop} c", add_special_tokens=False)["input_ids"]
        model = that_writes(written, tokenizer, len(prompt_ids(tokenizer, ["the"])[0]))
        (text,) = complete(model, tokenizer, [Request("", "the", len(written) + 1, (stop,))], Decoding())
        assert text.strip() == "b"


@pytest.mark.parametrize(("name", "template"), list(product(TOKENIZERS, TEMPLATES)))
def test_prompts_are_opened_and_never_lose_their_last_token(name, template):
    tokenizer = framed(TOKENIZERS[name](), template)
    around = template.replace("<s>", str(tokenizer.bos_token_id)).replace("</s>", str(tokenizer.eos_token_id))
    before, after = ([int(part) for part in side.split()] for side in around.split("$A"))
    every = [*PROMPTS, "", "<s>", "</s>", "<s><s>", "</s></s>", "aaa"]
    texts = [text for text in every if ids_of(tokenizer, text) is not None]
    bare = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert ids_around(tokenizer) == ids_around(tokenizer, texts[::-1]) == (before, after)
    for chosen in (slice(None), *(slice(place, place + 1) for place in range(len(texts)))):
        assert prompt_ids(tokenizer, texts[chosen]) == [before + ids for ids in bare[chosen]]
    if unread := [text for text in every if text not in texts]:
        with pytest.raises(UserError, match=f"cannot read {re.escape(repr(unread[0]))}"):
            prompt_ids(tokenizer, every)


def test_a_result_names_the_stops_that_are_out_of_reach(tmp_path):
    tokenizer = TOKENIZERS["collapsing"]()
    that_writes([], tokenizer, 100).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    problem = {"question": "b c?", "answer": "\n#### 1"}
    (tmp_path / "test.jsonl").write_text(json.dumps(problem) + "\n")
    options = {"shots": 0, "max_new_tokens": 8}
    config = EvalConfig("gsm8k", options, str(tmp_path), model=str(tmp_path / "model"))
    run_evaluation(config, tmp_path / "out")
    protocol = read_json(tmp_path / "out" / "metrics.json")["protocol"]
    assert protocol["stops_out_of_reach"].keys() <= set(protocol["stop"])
    assert protocol["stops_out_of_reach"]["Question:"] is None  # "u" is unknown to the tokenizer


def test_the_likelihood_of_a_text_counts_its_special_tokens():
    tokenizer = framed(TOKENIZERS["characters"](), "<s> $A </s>")
    model = that_writes([], tokenizer, 30)
    (_, bits), (_, more) = bits_of(model, tokenizer, ["b", "b"], ["c", "c\n"], batch_size=1)
    one = torch.log2(torch.tensor(float(len(tokenizer)))).item()
    assert sorted([bits, more]) == pytest.approx([one, 2 * one], rel=1e-2)


def test_a_tokenizer_that_changes_texts_with_special_tokens_is_refused(monkeypatch):
    tokenizer = framed(TOKENIZERS["characters"](), "<s> $A")
    own = type(tokenizer).__call__

    def odd(self, text, **given):
        found = own(self, text, **given)
        if given.get("add_special_tokens"):
            found["input_ids"] = [token + 1000 for token in found["input_ids"]]
        return found

    monkeypatch.setattr(type(tokenizer), "__call__", odd)
    with pytest.raises(UserError, match=r"tokenizer \(.*\) does not keep the tokens of a text together"):
        ids_around(tokenizer, ["bcd"])


@pytest.mark.parametrize("number", [1, 2, 10])
def test_text_of_single_bytes_is_kept_where_a_character_is_torn(number):
    tokenizer = TOKENIZERS["sentencepiece"]()
    prompt = tokenizer("the")["input_ids"]

    def ids(text: str) -> list[int]:
        return [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in text.encode()]

    new = ids("あ" * number + "。きき") + ids("き")[:1]
    model = that_writes(new, tokenizer, len(prompt))
    assert complete(model, tokenizer, [Request("", "the", len(new), stop=("。",))], Decoding()) == ["あ" * number]
    for torn in (1, 2):
        new = ids("い" * number) + ids("か")[:torn]
        model = that_writes(new, tokenizer, len(prompt))
        pieces: list[str] = []
        whole = complete(model, tokenizer, [Request("", "the", len(new))], Decoding(), on_text=pieces.append)
        assert whole == ["".join(pieces)] == ["い" * number + "\N{REPLACEMENT CHARACTER}"]
