"""`calmctl show --text`: what an aug reads at each of the anchor's tokens, as a table and as JSON."""

import io
import json
import unicodedata
from pathlib import Path

import pytest
from rich.cells import cell_len

from calmctl.cli.main import main
from calmctl.cli.reading_table import shown
from calmctl.modeling.composition import compose
from calmctl.modeling.tokenizers.readings import steps_of
from calmctl.modeling.tokenizers.token_bytes import TokenBytes
from tests import tokenizer_families as families
from tests.own_tokenizers import PAIRS, any_ids, base, segmenter, text_ids

TEXT = "two  words,\n\tनमस्ते 你好 👩🏽\u200d🚀 fin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an anchor, two augs with tokenizers of their own, a composed model of them, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("show")
    tokenizers = {"anchor": families.gpt2_style(), "aug": families.llama3_style(), "pieces": families.gemma_style()}
    for name, tokenizer in {**tokenizers, "lower": families.lower_casing()}.items():
        base("llama", tokenizer, 0).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    names = [str(folder / name) for name in ("aug", "pieces", "anchor")]
    compose(str(folder / "anchor"), names, segmentation="chunks").save_pretrained(folder / "composed")
    return folder


def shown_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main(["show", *map(str, arguments), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["own", "chunks"])
@pytest.mark.parametrize("pair", ["gpt2-llama3", "llama2-gemma", "unigram-bytes"])
def test_steps_add_up_to_what_the_anchor_has_said(pair, kind):
    one = segmenter(pair, kind)
    theirs = TokenBytes.of(PAIRS[pair][1](), "the aug")
    for ids in (*text_ids(pair, 1).tolist(), *any_ids(pair, 1).tolist()):
        read: list[int] = []
        for index, step in enumerate(steps_of(one, ids)):
            for token_id in reversed(step.replaced):
                assert read.pop() == token_id
            read += step.new
            assert step.visible == len(read)
            said = one.anchor.text_bytes(token_id for token_id in ids[: index + 1] if not one.is_border(token_id))
            assert said.endswith(step.waiting)
            if not any(map(one.is_border, ids)) and "\ufffd" not in (text := said.decode(errors="replace")):
                assert theirs.text_bytes(read).decode() == text and not step.waiting


def test_a_composed_model_reads_as_its_parts_would(folder, capsys):
    augs = [part for name in ("aug", "pieces", "anchor") for part in ("--aug", folder / name)]
    parts = shown_json(capsys, "--anchor", folder / "anchor", *augs, "--text", TEXT, "segmentation=chunks")
    assert shown_json(capsys, folder / "composed", "--text", TEXT) == parts
    assert [aug["segmentation"] for aug in parts["augs"]] == ["chunks", "chunks", None]
    ours = [[token] for token in parts["anchor"]["tokens"]]
    assert [step["reads"] for step in parts["augs"][2]["steps"]] == ours
    other = shown_json(capsys, "--anchor", folder / "anchor", *augs, "--text", TEXT)
    assert other["anchor"] == parts["anchor"] and other["augs"][0] != parts["augs"][0]


def test_a_model_card_says_how_each_aug_reads(folder):
    names = [str(folder / name) for name in ("aug", "anchor")]
    model = compose(str(folder / "anchor"), names, segmentation="chunks", markers={"<|im_end|>": "</s>"})
    model.save_pretrained(folder / "with markers")
    card = (folder / "with markers" / "README.md").read_text()
    rows = [line for line in card.partition("## Tokenizers")[2].splitlines() if line.startswith("| aug 0")]
    hashes = [model.config.segmentations[0][f"{role}_sha256"][:12] for role in ("aug", "anchor")]
    said = " | ".join(["| aug 0", "every anchor token tokenized alone", *(f"`{each}`" for each in hashes)])
    assert rows == [f"{said} | `<\\|im_end\\|>`: `</s>` |"]


def test_the_table_has_a_row_a_token_and_aligned_columns(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    pair = ["show", "--anchor", str(folder / "anchor"), "--aug", str(folder / "pieces"), "--text"]
    assert main([*pair, "-"]) == 0
    printed = capsys.readouterr().out
    head, rows = (part.splitlines() for part in printed.split("─" * 10, 1)[0::1])
    assert "aug reads" in head[-2] and "own tokenization" in printed and "␣" in printed and "⇥" in printed
    rows = [row for row in rows[1:] if row.strip()]
    assert [int(row.split()[0]) for row in rows] == list(range(len(rows)))
    assert len({cell_len(row) for row in rows}) == 1  # in terminals' columns
    assert main([*pair, TEXT]) == 0 and capsys.readouterr().out == printed


def test_nothing_in_a_cell_is_invisible_or_of_a_width_that_depends_on_its_neighbours():
    for text in (
        " ",
        "\n",
        "\r\n",
        "\u200d",
        "e\u0301",
        "\u0301",
        "\u093f",
        "🏽",
        "🇯",
        "❤\ufe0f",
        "\u00a0",
        "\u2028\x1b",
    ):
        cell = shown(text)
        assert cell.strip() == cell and cell.isprintable() and cell_len(cell) > 0
        assert not unicodedata.category(cell[0]).startswith("M")
    assert [shown(text) for text in (" the", "\n\t", "\u200d", "\u0301", "🏽")] == [
        "␣the",
        "↵⇥",
        "<200D>",
        "◌\u0301",
        "<1F3FD>",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "give one run"),
        ("anchor --text x", "not a composed one"),
        ("--text x", "give one composed model"),
        ("--anchor anchor --text x", "--aug MODEL"),
        ("--anchor anchor --aug aug", "--text"),
        ("--anchor anchor --aug lower --text x", "does not keep texts"),
        ("--anchor anchor --aug aug --text x segmentation=words", "segmentation=words: expected one of"),
        ("--anchor anchor --aug aug --text x --marker nothing", "--marker nothing: give two tokens"),
        ("--anchor anchor --aug aug --text x --marker <nothing>=</s>", "no special token '<nothing>'"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_told_in_one_line(arguments, words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["show", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1
