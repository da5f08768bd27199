"""What a model wrote, or a file is called, is shown and never obeyed: on a terminal, in a report, in a model card."""

import json
import random
import re
import unicodedata
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from calmctl.cli import generate, main, output
from calmctl.cli.progress import Display, RunProgress
from calmctl.escaping import md_code, md_text, visible
from calmctl.modeling.stored.card import model_card
from calmctl.reporting.document.page import (
    Bullets,
    Document,
    Facts,
    Paragraph,
    Section,
    document_html,
    document_markdown,
)
from calmctl.reporting.document.tables import Column, Number, Table, Text
from calmctl.reporting.document.terminal import print_tables
from data_builders.values import write_json
from tests.models import composed, llama

HOSTILE = [
    "\x1b]0;title\x07", "\x1b[2J\x1b[31mred", "\x9b31m", "\x1bP+q\x1b\\", "\x1b]8;;http://evil\x1b\\x",
    "a\rb\x08\x7f",
    "\u202egnp.exe", "\u2066x\u2069", "a\u2028b\u2029c", "\U000e0041", "\ud800", "\0",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "![x](http://evil)",
    "|a|b|", "```\n# head", "`a``b", "**b** __u__ ~~s~~", "[red]x[/red]", "<!-- ", "&lt;b>", "---", "> q", "\\", '"',
]  # fmt: skip
HARMLESS = "línea\n\tنص עברית हिन्दी ไทย 中文 👩‍👩‍👧 a\u200cb e\u0301"


def texts(count: int) -> list[str]:
    draw = random.Random(0)
    return [*HOSTILE, *("".join(draw.choices(HOSTILE, k=4)) for _ in range(count))]


def is_shown(text: str) -> bool:
    """Tell whether there is nothing in a text that is obeyed instead of shown."""
    kinds = {unicodedata.category(letter) for letter in text if letter not in "\n\t"}
    marks = "[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
    return not kinds & {"Cc", "Cs", "Zl", "Zp"} and not re.search(marks, text)


def report(text: str) -> Document:
    cells = (Text(text, href=text, is_code=True), Number(1.0, note=text))
    table = Table(text, (Column(text, group=text), Column("b")), (cells,), text, {0: text})
    blocks = (Paragraph(text, is_warning=True), Bullets((text,)), Facts(((text, text),)), table)
    return Document(text, (text, text), (Section(text, blocks),))


def on_terminal(text: str) -> None:
    print_tables(*(block for block in report(text).sections[0].blocks if isinstance(block, Table)))
    output.print_table([text], [[text]], title=text)
    output.print_facts({"a": text})
    output.print_plan({"a": text, "b": [text]}, as_json=False)
    output.print_json({text: [text]})
    breakdown = {"by_set": {text: {"name": text, "n": 1, text: 1.0}}}
    output.print_metrics({"task": text, "metrics": {}, "n": 1, "breakdown": breakdown}, text)
    output.note(text)
    generate._say([text], text)
    main._complain(f"error: {text}", 2, trace=text)


def test_text_that_is_obeyed_is_written_out_and_other_text_is_left_alone(tmp_path: Path) -> None:
    assert visible(HARMLESS) == HARMLESS
    for text in texts(300):
        assert is_shown(visible(text)) and visible(visible(text)) == visible(text)
        assert json.loads(visible(json.dumps({text: text}, ensure_ascii=False))) == {text: text}
        for shown in (md_text(text), md_code(text)):
            assert is_shown(shown) and "\n" not in shown


def test_terminals_show_what_a_model_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    for text in texts(20):
        on_terminal(text)
        captured = capsys.readouterr()
        assert is_shown(captured.out) and is_shown(captured.err), text


def test_reports_show_what_a_model_wrote() -> None:
    for text in texts(60):
        page, markdown = document_html(report(text)), document_markdown(report(text))
        assert is_shown(page) and is_shown(markdown)
        assert not re.search(r"<(script|img)\b|<[^>]*onerror=|href=.javascript:", page.partition("</style>")[2])
        assert visible(text) in unescape(page)
        # Outside of code there is no markup of the text's own.
        prose = re.sub(r"(`+) ?.*? ?\1", "", "\n".join(line for line in markdown.split("\n")))
        assert not re.search(r"(?<!\\)\[x\]\(|(?<!\\)!\[x\]|<(script|img|!--)", prose), text


def test_model_cards_show_what_files_are_called(tmp_path: Path) -> None:
    model = composed(llama(seed=1), llama(seed=2, width=16, heads=2), trained=False)
    model.save_pretrained(tmp_path / "model")
    for text in HOSTILE:
        model.config.training = {text: text}
        model.config.bases[0]["source"] = f"/tmp/{text}"
        model.config.bases[1]["source"] = text
        card = model_card(model, text)
        assert is_shown(card)
        prose = re.sub(r"(`+) ?.*? ?\1", "", card.replace("```", ""))
        assert not re.search(r"(?<!\\)\[x\]\(|(?<!\\)!\[x\]|<(script|img)", prose.partition("## Use")[0]), text
        rows = [line for line in card.split("\n") if "LlamaForCausalLM" in line]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [8, 8], text


def test_progress_shows_what_a_stage_is_called(tmp_path: Path, capsys: Any) -> None:
    from rich.console import Console

    for text in texts(5):
        write_json(tmp_path / "progress.json", {"stage": text.replace("\ud800", ""), "step": 1, "total": 2})
        Console(width=200).print(Display([RunProgress.read(text, tmp_path)], text))
    assert is_shown(capsys.readouterr().out)
