"""Conversations: rendered by the tokenizer's own template, and only the assistant's answers are learned."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.chat import DATE, ChatTemplate
from calmctl.modeling.loss import IGNORED
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.training.batches import Batches
from calmctl.training.examples import load_examples
from calmctl.training.mixing import joined
from calmctl.training.prepared import hold_out
from tests.additions import SETTINGS, write
from tests.task_data import byte_tokenizer

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye?"},
    {"role": "assistant", "content": "Bye.\n\nSee you."},
    {"role": "user", "content": "left unanswered"},
]


def chatting(template: str = CHATML, opening: str = "") -> PreTrainedTokenizerBase:
    """Return a tokenizer with a template; `opening`: a special token that it puts before every text."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<bos>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = template
    if opening:
        pair = (opening, tokenizer.convert_tokens_to_ids(opening))
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{opening} $A", special_tokens=[pair])
    return tokenizer


def learned(path: Path, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> list[tuple[str, str]]:
    """Return what precedes and what is learned of each example, with special tokens."""
    settings = replace(SETTINGS, **settings)
    examples = load_examples(path, tokenizer, settings)
    found = []
    for row in range(len(examples)):
        batch = Batches(examples, settings, 0, 0).collate(np.array([row]))
        ids, labels = batch["input_ids"][0], batch["labels"][0]
        found.append((tokenizer.decode(ids[labels == IGNORED]), tokenizer.decode(ids[labels != IGNORED])))
    return found


def test_every_answer_is_learned_after_what_is_asked_for_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": TALK, "meta": {"n": 1}}, {"messages": TALK[1:3], "meta": {"n": 2}})
    tokenizer = chatting()
    found = learned(path, tokenizer)
    assert [answer for _, answer in found] == ["Hello!<|im_end|>", "Bye.\n\nSee you.<|im_end|>", "Hello!<|im_end|>"]
    asked = [TALK[:2], TALK[:4], TALK[1:2]]
    assert [prompt for prompt, _ in found] == [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for messages in asked
    ]
    examples = load_examples(path, tokenizer, SETTINGS)
    assert (examples.rows.tolist(), examples.meta["n"].tolist()) == ([1, 1, 2], [1, 1, 2])
    assert [answer for _, answer in learned(path, tokenizer, append_eos=False)][0] == "Hello!"


def test_a_conversation_that_the_assistant_begins_is_learned_from_the_first_question_on(tmp_path: Path) -> None:
    greeting = {"role": "assistant", "content": "Welcome."}
    ((prompt, answer),) = learned(write(tmp_path / "a.jsonl", {"messages": [greeting, *TALK[1:3]]}), chatting())
    assert "Welcome." in prompt and answer == "Hello!<|im_end|>"


def test_answers_of_one_conversation_are_held_out_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"messages": TALK[: 3 + 2 * (n % 2)]} for n in range(40)))
    examples = joined([load_examples(path, chatting(), SETTINGS)] * 2)
    assert examples.counts["rows"] == 80 and set(examples.rows) == set(range(1, 81))
    for seed in range(5):
        train, held_out = hold_out(examples, 0.2, seed)
        assert not set(train.rows) & set(held_out.rows) and len(train) + len(held_out) == len(examples) == 120
        assert 22 <= len(held_out) <= 24
    assert len(hold_out(examples.subset(np.arange(1, 4)), 0.1, 0)[1]) in (1, 2)


def test_a_template_that_writes_the_opening_token_does_not_double_it(tmp_path: Path) -> None:
    tokenizer = chatting("<bos>" + CHATML, opening="<bos>")
    (prompt, _), *_ = learned(write(tmp_path / "a.jsonl", {"messages": TALK}), tokenizer)
    asked = tokenizer.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True)
    assert prompt == asked and prompt.count("<bos>") == 1
    ids = tokenizer.apply_chat_template(TALK[:2], add_generation_prompt=True, return_dict=False)
    assert prompt_ids(tokenizer, [ChatTemplate(tokenizer).prompt(TALK[:2])]) == [ids]


@pytest.mark.parametrize("name", ["smollm2", "qwencoder"])
def test_published_templates(name: str) -> None:
    """Those of real models, in the folder that the environment variable CALMCTL_MODELS names."""
    folder = Path(os.environ.get("CALMCTL_MODELS", "nowhere")) / name
    if not folder.is_dir():
        pytest.skip("CALMCTL_MODELS does not hold this model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    template = ChatTemplate(tokenizer)
    for prompt, answer in template.answers(TALK):
        assert prompt.endswith("<|im_start|>assistant\n") and answer in ("Hello!", "Bye.\n\nSee you.")
    ids = tokenizer.apply_chat_template(TALK[:2], add_generation_prompt=True, return_dict=False)
    assert prompt_ids(tokenizer, [template.prompt(TALK[:2])]) == [ids]


@pytest.mark.parametrize("today", [datetime(2025, 3, 1), datetime(2026, 12, 24)])
def test_the_date_of_a_template_does_not_change_overnight(tmp_path: Path, monkeypatch, today: datetime) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return today

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    tokenizer = chatting("{% set day = strftime_now('%d %b %Y') %}Today is {{ day }}.\n" + CHATML)
    template = ChatTemplate(tokenizer)
    assert template.prompt(TALK[:2]) == "Today is 26 Jul 2024.\n" + ChatTemplate(chatting()).prompt(TALK[:2])
    for directive in "%d %b %Y", "%Y-%m-%d", "%B %d, %Y", "%-d %B %Y", "%A, %H:%M", "%x", "as it is":
        asking = chatting("  \n {% if strftime_now is defined %}{{ strftime_now('" + directive + "') }}{% endif %}\n")
        plain = chatting("  \n {% if true %}{{ '" + DATE.strftime(directive) + "' }}{% endif %}\n")
        assert ChatTemplate(asking).prompt(TALK[:1]) == ChatTemplate(plain).prompt(TALK[:1])
    assert template.date == "2024-07-26" and ChatTemplate(chatting()).date is None
    (prompt, _), *_ = learned(write(tmp_path / "a.jsonl", {"messages": TALK}), tokenizer)
    assert prompt == template.prompt(TALK[:2])


REFUSED = {
    "no template": (None, TALK, "has no chat template for rows of messages"),
    "says no": ("{{ raise_exception('no system role') }}", TALK, "row 1: the chat template refuses .*no system role"),
    "no prefix": ("{{ messages | length }}" + CHATML, TALK, "row 1: .* something else before the answer in message 3"),
    "unbalanced": ("{% for", TALK, "row 1: the chat template refuses"),
    "no answer": (CHATML, TALK[:2], "row 1 has no message of the assistant"),
    "no question": (CHATML, TALK[2:3], "row 1 has no message of the assistant after another"),
    "empty answer": (CHATML, [TALK[1], {"role": "assistant", "content": ""}], "row 1 has nothing to learn"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_rendered_is_one_line(tmp_path: Path, name: str) -> None:
    template, messages, said = REFUSED[name]
    tokenizer = chatting()
    tokenizer.chat_template = template
    path = write(tmp_path / "a.jsonl", {"messages": messages})
    with pytest.raises(UserError, match=said) as caught:
        load_examples(path, tokenizer, SETTINGS)
    assert "\n" not in str(caught.value)


def test_what_templates_read_besides_role_and_content_reaches_them() -> None:
    template = ChatTemplate(chatting("{% for m in messages %}{{ m.name }}: {{ m.content }}\n{% endfor %}"))
    assert template.prompt([{"role": "user", "name": "Ada", "content": "Hi"}]) == "Ada: Hi\n"
