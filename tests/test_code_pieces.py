"""The pieces of the code data: licences, functions, pairs, prose, near-duplicates, overlap, tokenizer."""

import ast
import sysconfig
import textwrap
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from data_builders.benchmarks.codexglue import remove_docstring
from data_builders.bpe_tokenizer import train_bpe
from data_builders.code.filters import comment_blocks, document_text, prose_of
from data_builders.code.fingerprints import minhash, near_duplicates, ngrams, token_ids
from data_builders.code.functions import find_docstrings, find_functions, make_pair, parse, summary_tokens
from data_builders.code.licences import TreeLicences, of_all, of_expression, of_header, of_licence_text
from data_builders.code.overlap import CodeOverlapIndex, build_index
from data_builders.errors import UserError
from tests.code_tree import MBPP_CODE, PROMPT, SOLUTION, module, write_test_sets

REFORMATTED = ast.unparse(ast.parse(MBPP_CODE)).replace("longest_even_run", "mine").replace(" = 0", " = (\n 0\n)")
COMMENTED = """\
# Sum the places of the letters in the alphabet, each times the weight
# to the power of its place from the right, and
# take the remainder by the modulus.
"""
STANDARD = Path(sysconfig.get_path("stdlib"))


@pytest.mark.parametrize(
    ("expression", "licence"),
    [
        ("MIT", "permissive"),
        ("Apache-2.0 OR GPL-2.0-only", "permissive"),
        ("Apache-2.0 AND MIT", "permissive"),
        ("MPL-2.0 AND MIT", "other"),
        ("LGPL-2.1-or-later", "other"),
        ("BSD License", "permissive"),
        ("Other/Proprietary License", "other"),
        ("", "unknown"),
        ("see the website", "unknown"),
        ("GPLv3", "other"),
        ("LGPLv2+", "other"),
    ],
)
def test_licences_are_classified_by_their_words(expression: str, licence: str) -> None:
    assert of_expression(expression) == licence


def test_headers_and_licence_files_are_read() -> None:
    assert of_header("# SPDX-License-Identifier: MIT\nx = 1") == "permissive"
    assert of_header("# This is free software under the GNU General Public\n# License, version 3.") == "other"
    assert of_header('# Licensed under\n# the Apache License, Version 2.0 (the "License");') == "permissive"
    assert of_header("// under the terms of the GNU General\n// Public License") == "other"
    assert of_header("# Released under the GPLv2, and parts of it under the MIT license.") == "other"
    assert of_header("x = 1") == "unknown"
    assert of_licence_text("Attribution-NonCommercial 4.0. Permission is hereby granted, free of charge") == "other"
    assert [of_all(["MIT", each]) for each in ("ISC", "GPL-3.0", "custom")] == ["permissive", "other", "unknown"]
    assert of_licence_text((STANDARD / "LICENSE.txt").read_text()) == "permissive"
    assert of_licence_text("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007") == "other"


def test_a_file_has_the_licence_of_its_package_or_of_the_nearest_licence_file(tmp_path: Path) -> None:
    (tmp_path / "pack-1.dist-info").mkdir()
    (tmp_path / "pack-1.dist-info" / "METADATA").write_text("Name: pack\nLicense-Expression: GPL-3.0-only\n\nText")
    (tmp_path / "pack-1.dist-info" / "RECORD").write_text("pack/a.py,sha256=x,1\npack/LICENSE,,\n")
    texts = {"pack": "MIT License", "other": "MIT License", "other/deep": "", "other/theirs": "All is ours. Keep out."}
    for folder, text in texts.items():
        (tmp_path / folder).mkdir()
        if text:
            (tmp_path / folder / "LICENSE").write_text(text)
    licences = TreeLicences(tmp_path)
    assert licences.of(tmp_path / "pack" / "a.py") == "other"
    assert licences.of(tmp_path / "pack" / "b.py") == "permissive"
    assert licences.of(tmp_path / "other" / "deep" / "c.py") == "permissive"
    assert licences.of(tmp_path / "other" / "theirs" / "d.py") == "unknown"
    (tmp_path / "licenses.py").write_text("PERMISSIVE = 'MIT License'")
    assert licences.of(tmp_path / "e.py") == "unknown"


@pytest.mark.parametrize("name", ["textwrap", "heapq", "asyncio/locks", "enum"])
def test_functions_of_the_standard_library_are_those_of_ast_without_their_docstrings(name: str) -> None:
    text = (STANDARD / f"{name}.py").read_text()
    tree = parse(text)
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    functions = list(find_functions(tree, text))
    assert sorted(each.name for each in functions) == sorted(node.name for node in nodes)
    owners = [*nodes, tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    documented = map(ast.get_docstring, owners)
    assert sorted(find_docstrings(tree)) == sorted(filter(None, documented))
    for each in functions:
        if each.docstring and each.code:
            assert ast.get_docstring(parse(each.code).body[0]) is None  # type: ignore[arg-type]
            assert ast.dump(parse(remove_docstring(each.original))) == ast.dump(parse(each.code))


def function_of(text: str):  # type: ignore[no-untyped-def]
    text = textwrap.dedent(text)
    return next(find_functions(parse(text), text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def f(x):\n  '''Add one to it.'''", "no_code_beside_docstring"),
        ("def f(x): '''Add one to it.'''; return x", "no_code_beside_docstring"),
        ("def f(x):\n  '''Add one to it.'''\n  'More of it.'\n  return x", "no_code_beside_docstring"),
        ("def f(x):\n  '''Add one to it.'''\n  return x + 1", "short_function"),
        ("def __f__(x):\n  '''Add one to it.'''\n  y = x\n  return y", "test_or_special_method"),
        ("def f(x):\n  '''Add.'''\n  y = x\n  return y", "short_summary"),
        ("def f(x):\n  '''Äpfel und Birnen zählen.'''\n  y = x\n  return y", "not_ascii"),
        ("def f(x):\n  '''See https://it.com'''\n  y = x\n  return y", "markup"),
        ("def f(x):\n  '''Add one to it'''\n  # add one to it\n  return x", "code_holds_summary"),
        ("def f(x):\n  '''Add one to it and then more of it, again and again.'''\n  y = x\n  return y", "long_summary"),
        (f"def f(x):\n  '''Add one to it.'''\n  y = x\n  return y{'1' * 300}", "long_function"),
    ],
)
def test_functions_that_make_no_pair_have_a_reason(text: str, reason: str) -> None:
    assert make_pair(function_of(text), max_bytes=200, max_tokens=10) == reason


def test_pair_of_a_method_stands_at_the_margin() -> None:
    pair = make_pair(
        function_of("""
        class A:
            @property
            def f(self):
                '''Return what :attr:`x` is.

                :param x: nothing.
                '''
                text = '''
        as it stands'''
                return self.x
        """),
        200, 20)  # fmt: skip
    assert not isinstance(pair, str)
    assert pair.prompt == "@property\ndef f(self):\n    text = '''\nas it stands'''\n    return self.x\n# Summary:"
    assert pair.completion == " Return what : attr : ` x ` is ."
    assert summary_tokens("Add one.\n:param x: it\n") == summary_tokens("Add one.\n\nMore") == ("Add", "one", ".")


def test_prose_is_told_from_code_tables_and_other_languages() -> None:
    kept = "This is a paragraph of English, which is kept as it stands."
    dropped = [
        ">>> this is of the doctest that is not in it",
        "| a | b | c | the | 1.2 | 3.4 | 5.6 |",
        "for i in range(10): x[i] = {'a': (i, 2)}; y[i] += 1",
        "Dies ist ein Absatz auf Deutsch, den niemand behalten will",
        "too short",
    ]
    assert prose_of("\n\n".join([dropped[0], kept, *dropped[1:]]), min_words=5) == kept
    assert comment_blocks("x = 1  # not\n# one\n  # two\ny\n# three") == ["one\ntwo", "three"]
    assert document_text("a/METADATA", "Name: a\nVersion: 1\n\nThe text.") == "The text."


def test_similarity_is_estimated_and_the_first_of_a_group_stays() -> None:
    texts = [module("edges"), module("rows"), module("edges") + "\nMORE = 1\n", module("edges").replace(" ", "  ")]
    shingles = [set(ngrams(token_ids(text), 5).tolist()) for text in texts]
    signatures = np.stack([minhash(token_ids(text)) for text in texts])
    for i in range(len(texts)):
        for j in range(i):
            exact = len(shingles[i] & shingles[j]) / len(shingles[i] | shingles[j])
            assert abs((signatures[i] == signatures[j]).mean() - exact) < 0.15
    assert near_duplicates(signatures, 0.8).tolist() == [False, False, True, True]
    assert near_duplicates(signatures[::-1], 0.8).tolist() == [False, True, False, True]
    assert near_duplicates(signatures, 0.999).tolist() == [False, False, False, True]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CodeOverlapIndex:
    folder = write_test_sets(tmp_path_factory.mktemp("tests"))
    built = build_index({name: folder / name for name in ("humaneval", "mbpp", "codexglue")}, 10, 0.5)
    built.save(folder / "index")
    loaded = CodeOverlapIndex.open(folder / "index")
    assert loaded.digest == built.digest
    return loaded


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"def other(letters, weight, modulus):\n{SOLUTION}", "humaneval"),
        (SOLUTION.upper().replace(" ", "\n"), "humaneval"),
        ("def weighted_letter_sum(letters, weight, modulus): return 0", "humaneval"),
        ("class A:\n  def weighted_letter_sum(self, letters): return 0", None),
        (PROMPT.replace("weighted_letter_sum", "mine") + "    return letters\n", "humaneval"),
        (MBPP_CODE.replace("longest_even_run", "mine"), "mbpp"),
        ("# Write a function to find the length of the longest run of even numbers before a limit.", "mbpp"),
        (REFORMATTED, "mbpp"),
        (REFORMATTED.replace("):\n", "):\n    # a note of our own\n").replace("else 0", "else 0  # another"), "mbpp"),
        ("def f(a, b, c): return {'a': (a, [b], \"c\")}", None),
        (COMMENTED, "humaneval"),
        (COMMENTED.translate({code: code + 0xFEE0 for code in range(ord("A"), ord("z") + 1)}), "humaneval"),
        ("total = 0\nfor index, letter in enumerate(letters):\n    total += index\n", None),
        (module("edges"), None),
    ],
)
def test_items_of_test_sets_are_found_wherever_they_stand(
    index: CodeOverlapIndex, text: str, found: str | None
) -> None:
    assert index.find_in(text, is_python=True) == found
    assert index.find_in(f"{module('rows')}\n\n{text}", is_python=True) == found


def test_tokenizer_gives_every_text_back_and_digits_are_tokens(tmp_path: Path) -> None:
    text = (STANDARD / "textwrap.py").read_text()
    tokenizer = train_bpe([text] * 3, 500)
    assert len(tokenizer) == 500
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        for piece in (text, "\t\tif x:\r\n\n        y = 12345  \n", "é 中 \x00 🙂", "<eos> and <pad>", "  ", " x"):
            assert each.decode(each(piece)["input_ids"]) == piece
        assert not {each.eos_token_id, each.pad_token_id} & set(each("<eos> <pad>")["input_ids"])
        assert each.tokenize("12345") == list("12345")
        assert len(each("\n        return")["input_ids"]) <= 4
    assert train_bpe([text] * 3, 500).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(UserError, match="vocab_size: 200 is too small"):
        train_bpe([text], 200)
