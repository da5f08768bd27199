"""Every layout is read, and what is wrong with one is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders.benchmarks.languages import known_code
from data_builders.errors import UserError
from data_builders.ntl.aligned_files import read_aligned, read_texts, suspicious_line
from data_builders.ntl.config import CorporaConfig
from data_builders.ntl.corpora import open_corpora
from data_builders.ntl.corpus import Corpus
from data_builders.ntl.hub_corpus import read_hub_corpus
from data_builders.ntl.table_files import holds_pairs, is_nusax, read_nusax, read_pairs
from tests.ntl_corpora import sentences, write_lines, write_ntrex, write_nusax, write_seed
from tests.real_data import real_data


def columns(corpus: Corpus, max_rows: int | None = None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {code: [] for code in corpus.languages}
    for block in corpus.blocks(max_rows):
        assert len({len(column) for column in block.values()}) == 1
        for code, column in block.items():
            found[code] += column
    return found


def test_seed_and_ntrex(tmp_path: Path) -> None:
    (seed,) = read_aligned(write_seed(tmp_path / "seed"), ())
    assert seed.name == "seed" and seed.num_rows == 300 and len(seed.files) == 3
    assert columns(seed) == {code: list(sentences(code, 300)) for code in ("eng_Latn", "fur_Latn", "lij_Latn")}
    assert [len(column) for column in columns(seed, 120).values()] == [120] * 3
    (ntrex,) = read_aligned(write_ntrex(tmp_path / "ntrex"), ("fra_Latn", "eng_Latn"))
    assert ntrex.name == "ntrex/newstest2019" and set(ntrex.languages) == {"eng_Latn", "fra_Latn"}
    assert columns(ntrex)["fra_Latn"] == list(sentences("fra_Latn", 200, "news"))


def test_moses_names_pair_folders_and_texts(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.en", ["a b", "", " c\u2028d\te ", "last"])
    write_lines(tmp_path / "train.fr", ["A B", "B", "C", "D"])
    write_lines(tmp_path / "valid.fr", ["only"])
    write_lines(tmp_path / "lij_Latn-eng_Latn" / "lij_Latn", ["x", "y"])
    write_lines(tmp_path / "lij_Latn-eng_Latn" / "eng_Latn", ["X", "Y"])
    (tmp_path / "last.en").write_bytes(b"\xef\xbb\xbfno line end")
    corpora = {corpus.name.partition("/")[2]: corpus for corpus in read_aligned(tmp_path, ())}
    assert set(corpora) == {"train", "valid", "lij_Latn-eng_Latn", "last"}
    assert columns(corpora["train"])["eng_Latn"] == ["a b", "", "c d e", "last"]
    assert columns(corpora["lij_Latn-eng_Latn"]) == {"eng_Latn": ["X", "Y"], "lij_Latn": ["x", "y"]}
    assert columns(corpora["last"]) == {"eng_Latn": ["no line end"]} and corpora["last"].num_rows == 1
    assert len(read_texts(tmp_path, ("fra_Latn",))) == 2


def test_nusax_leaves_its_test_set_alone(tmp_path: Path) -> None:
    folder = write_nusax(tmp_path / "nusax")
    assert is_nusax(folder) and not is_nusax(tmp_path)
    train, valid = read_nusax(folder, ())
    assert set(train.languages) == {"ind_Latn", "ace_Latn", "eng_Latn"} and valid.num_rows == 40
    assert columns(train)["ace_Latn"] == list(sentences("lij_Latn", 40, "train"))
    (folder / "train.csv").write_text(",indonesian,acehnese,english\n0,a,b,c\n1,a,b\n")
    with pytest.raises(UserError, match="train.csv:3: has"):
        read_nusax(folder, ())


def test_files_of_pairs(tmp_path: Path) -> None:
    write_lines(tmp_path / "deu-eng.tsv.gz", ["\ufeffeins \tone", "", "zwei\ttwo\tCC-BY"])
    write_lines(tmp_path / "en_lij.tsv", ["a little\tun  pö"])
    write_lines(tmp_path / "en_tlh.tsv", ["no code of FLORES-200\tx"])
    write_lines(tmp_path / "README.tsv", ["left alone"])
    assert holds_pairs(tmp_path) and not holds_pairs(tmp_path.parent)
    german, ligurian = read_pairs(tmp_path, ())
    assert german.name == f"{tmp_path.name}/deu-eng" and german.num_rows == 2
    assert columns(german) == {"deu_Latn": ["eins", "zwei"], "eng_Latn": ["one", "two"]}
    assert columns(ligurian) == {"eng_Latn": ["a little"], "lij_Latn": ["un pö"]}
    assert [corpus.languages[0] for corpus in read_pairs(tmp_path, ("deu_Latn", "eng_Latn"))] == ["deu_Latn"]
    write_lines(tmp_path / "fr_en.tsv", ["un\tone", "deux"])
    with pytest.raises(UserError, match="fr_en.tsv:2: has one column"):
        read_pairs(tmp_path, ())
    write_lines(tmp_path / "fr_en.tsv", [" "])
    with pytest.raises(UserError, match="fr_en.tsv: holds no pair"):
        read_pairs(tmp_path, ())


@pytest.mark.parametrize("directions, expected", [
    ("both", {("lij_Latn", "eng_Latn"), ("eng_Latn", "lij_Latn")}),
    ("into_pivots", {("lij_Latn", "eng_Latn")}),
    ("from_pivots", {("eng_Latn", "lij_Latn")}),
])  # fmt: skip
def test_translations_go_the_ways_that_are_wanted(tmp_path: Path, directions: str, expected: set[object]) -> None:
    write_lines(tmp_path / "own" / "en_lij.tsv", ["a little\tun pö"])
    config = CorporaConfig(parallel=("own",), languages=("lij_Latn",), directions=directions)
    corpora = open_corpora("aug", config, str(tmp_path))
    assert set(corpora.pairs(corpora.corpora[0].languages)) == expected
    with pytest.raises(UserError, match="directions: 'up' is not one of both"):
        CorporaConfig(directions="up")


def publish(folder: Path, rows: list[dict[str, object]]) -> str:
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    return str(folder)


def test_datasets_of_the_hub(tmp_path: Path) -> None:
    pairs = publish(tmp_path / "opus", [{"translation": {"en": f"e{n}", "fr": f"f{n}", "xx": ""}} for n in range(5)])
    (opus,) = read_hub_corpus(pairs, ("eng_Latn", "fra_Latn"))
    assert columns(opus) == {"eng_Latn": [f"e{n}" for n in range(5)], "fra_Latn": [f"f{n}" for n in range(5)]}
    wide = publish(tmp_path / "wide", [{"lij_Latn": "l", "eng_Latn": None, "note": "n"}])
    assert columns(*read_hub_corpus(wide, ())) == {"lij_Latn": ["l"], "eng_Latn": [""]}
    long = [
        {"id": row, "iso_639_3": code[:3], "iso_15924": code[4:], "text": f"{code} {row}"}
        for code in ("lij_Latn", "eng_Latn")
        for row in (1, 2, 3)[: 3 if code == "eng_Latn" else 2]
    ]
    (seed,) = read_hub_corpus(publish(tmp_path / "oldi", long), ())
    assert columns(seed)["lij_Latn"] == ["lij_Latn 1", "lij_Latn 2", ""]
    assert columns(seed)["eng_Latn"] == ["eng_Latn 1", "eng_Latn 2", "eng_Latn 3"]
    with pytest.raises(UserError, match="holds no column of a language"):
        read_hub_corpus(publish(tmp_path / "other", [{"question": "?"}]), ())


@pytest.mark.parametrize("row", [0, 40, 150, 298])
def test_a_missing_line_is_found_within_a_few_lines(tmp_path: Path, row: int) -> None:
    folder = write_seed(tmp_path, languages=("lij_Latn",))
    lines = [sentence * (1 + number % 3) for number, sentence in enumerate(sentences("eng_Latn", 300))]
    write_lines(folder / "eng_Latn.gz", lines)
    write_lines(folder / "lij_Latn.gz", [line.swapcase() for line in lines[:row] + lines[row + 1 :]])
    with pytest.raises(UserError, match="lij_Latn.gz has 299 lines and eng_Latn.gz has 300") as raised:
        read_aligned(folder, ())
    line = int(str(raised.value).partition("near line ")[2].partition(":")[0])
    assert abs(line - (row + 1)) <= 3


def test_suspicious_line_of_nothing_in_common() -> None:
    import numpy as np

    assert suspicious_line(np.empty(0), np.ones(3)) == 1


@pytest.mark.parametrize("place", [0, 1 << 20, (1 << 20) - 1])
def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path, place: int) -> None:
    content = bytearray(b"0123456789abcde\n" * 80_000)
    content[place] = 0xE9  # the beginning of a character that does not end
    (tmp_path / "fra.txt").write_bytes(bytes(content))
    with pytest.raises(UserError, match=rf"fra.txt:{place // 16 + 1}: is no UTF-8"):
        read_texts(tmp_path, ())


SEED = CorporaConfig(("seed",))


def put(name: str, content: bytes) -> Callable[[Path], object]:
    """Return what writes a file into the folder of corpora."""

    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return write


REFUSED: dict[str, tuple[Callable[[Path], object], CorporaConfig, str]] = {
    "missing": (lambda folder: None, CorporaConfig(("none",)), r"aug.parallel: \S+none: no such folder"),
    "empty": (put("seed/ban_Latn", b""), SEED, "ban_Latn: holds no text"),
    "blank": (put("seed/ban_Latn.txt", b" \n" * 300), SEED, "ban_Latn.txt: holds no text"),
    "torn": (put("seed/lij_Latn.gz", b"\x1f\x8b\x08"), SEED, "lij_Latn.gz: cannot be read"),
    "language": (lambda folder: None, replace(SEED, languages=("ban_Latn",)), "no corpus holds ban_Latn; found eng_L"),
    "pivot": (
        lambda folder: None,
        replace(SEED, languages=("lij_Latn",), pivots=("fra_Latn",)),
        "aug.pivots: no parallel corpus holds fra_Latn",
    ),
    "twice": (put("seed/lij_Latn", b"a\n" * 300), SEED, "lij_Latn and lij_Latn.gz are both lij_Latn"),
    "nothing": (put("new/notes.txt", b"a"), CorporaConfig(("new",)), "new: holds no file of a language"),
    "file": (put("lij.txt", b"a"), CorporaConfig(("lij.txt",)), "lij.txt: is a file; name the folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str) -> None:
    prepare, config, message = REFUSED[name]
    write_seed(tmp_path / "seed")
    prepare(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        open_corpora("aug", config, str(tmp_path))
    assert "\n" not in str(raised.value)


def test_unknown_codes_are_refused_with_those_meant() -> None:
    with pytest.raises(UserError, match="use lij_Latn"):
        CorporaConfig(languages=("lij_Arab",))
    assert CorporaConfig(languages=("lij", "lij_Latn")).languages == ("lij_Latn",)


def test_codes_of_other_releases() -> None:
    names = ("fr", "fra", "fra_Latn", "ckb-Arab", "swa", "zho-CN", "ton", "ace", "README", "md")
    codes = ["fra_Latn"] * 3 + ["ckb_Arab", "swh_Latn", "zho_Hans", None, None, None, None]
    assert [known_code(name) for name in names] == codes


def test_the_real_corpora() -> None:
    (seed,) = read_aligned(real_data("nllb_seed"), ())
    assert len(seed.languages) == 41 and seed.num_rows == 6193
    (ntrex,) = read_aligned(real_data("ntrex"), ())
    assert len(ntrex.languages) == 52 and ntrex.num_rows == 1997
    train, valid = read_nusax(real_data("nusax"), ())
    assert (train.num_rows, valid.num_rows, len(train.languages)) == (500, 100, 9)
