"""FLORES data: its three layouts hold the same; languages and files that are refused."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from data_builders.benchmarks import flores
from data_builders.benchmarks.flores import ROWS, read_flores
from data_builders.benchmarks.languages import LANGUAGES
from data_builders.errors import UserError
from evals.flores import FloresTask
from tests.flores_folder import load, sentence, write_flores
from tests.real_data import real_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flores(tmp_path_factory.mktemp("flores"))


def write_plus(folder: Path, per_language: bool) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = [("eng", "Latn", "stan1293", "eng_Latn"), ("fra", "Latn", "stan1290", "fra_Latn")]
    labels += [("cmn", "Hans", "beij1234", "zho_Hans"), ("cat", "Latn", "stan1289", "cat_Latn")]
    labels += [("cat", "Latn", "vale1252", "valencian"), ("apc", "Arab", "sout3123", "ajp_Arab")]
    for split, count in ROWS.items():
        rows = [
            {
                "id": row,
                "iso_639_3": iso,
                "iso_15924": script,
                "glottocode": variety,
                "text": sentence(code, split, row),
            }
            for iso, script, variety, code in labels
            for row in reversed(range(count))
        ]
        if not per_language:
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
            continue
        (folder / split).mkdir()
        for iso, script, variety, _ in labels:
            own = [row for row in rows if (row["iso_639_3"], row["glottocode"]) == (iso, variety)]
            pq.write_table(pa.Table.from_pylist(own), folder / split / f"{iso}_{script}_{variety}.parquet")
    return folder


def test_every_language_loads_from_the_real_archive() -> None:
    data = read_flores(real_data("flores200"))
    assert list(data.sentences) == list(LANGUAGES) and len(LANGUAGES) == 204
    assert {tuple(map(len, splits.values())) for splits in data.sentences.values()} == {(997, 1012)}
    assert data.release == "flores200" and list(data.files) == ["flores200_dataset.tar.gz"]
    assert not set(data.sentences["eng_Latn"]["dev"]) & set(data.sentences["eng_Latn"]["devtest"])


def write_archive(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, arcname="flores200_dataset")
    return archive


def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked, unpack = [], flores._archive
    monkeypatch.setattr(flores, "_archive", lambda path: unpacked.append(path) or unpack(path))
    folder = write_flores(tmp_path / "folder")
    archive = write_archive(tmp_path / "flores200_dataset.tar.gz", folder)
    first = read_flores(tmp_path, ["fra_Latn"])
    assert read_flores(archive, ("fra_Latn",)) == first and unpacked == [archive]
    french = folder / "dev" / "fra_Latn.dev"
    french.write_text("\n".join(["Autre chose.", *french.read_text().split("\n")[1:]]))
    write_archive(archive, folder)
    assert read_flores(archive, ("fra_Latn",)).sentences["fra_Latn"]["dev"][0] == "Autre chose."
    assert unpacked == [archive] * 2


def test_the_three_layouts_hold_the_same(folder: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "flores200_dataset.tar.gz", folder)
    codes = ("fra_Latn", "zho_Hans")
    official = read_flores(folder, codes)
    for path in (tmp_path, tmp_path / "flores200_dataset.tar.gz", folder.parent):
        assert read_flores(path, codes).sentences == official.sentences
    for per_language in (False, True):
        (plus := tmp_path / f"plus{per_language}").mkdir()
        data = read_flores(write_plus(plus, per_language), (*codes, "ajp_Arab", "cat_Latn"))
        assert data.release == "flores_plus"
        assert {code: data.sentences[code] for code in codes} == official.sentences
        assert data.sentences["ajp_Arab"]["dev"][0] == "ajp_Arab says dev 0."
        assert data.sentences["cat_Latn"]["devtest"][-1] == "cat_Latn says devtest 1011."


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("min", "'min' is ambiguous; use min_Arab or min_Latn"),
        ("taq", "'taq' is ambiguous; use taq_Latn or taq_Tfng"),
        ("zho", "'zho' is ambiguous; use zho_Hans or zho_Hant"),
        ("fra_Arab", "'fra_Arab' is no code of FLORES-200; use fra_Latn"),
        ("French", "nearest: fra_Latn \\(French\\)"),
        ("xxx", "'xxx' is no code of FLORES-200 \\(codes are"),
        ("deu_Latn", "the data holds no deu_Latn \\(German\\)"),
    ],
)
def test_codes_that_are_refused(folder: Path, code: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(folder, languages=(code,))


def test_a_script_may_be_left_out_where_there_is_one(folder: Path) -> None:
    assert FloresTask(languages=("fra", "nqo")).languages == ("fra_Latn", "nqo_Nkoo")
    assert load(folder, languages=("fra",)) == load(folder, languages=("fra_Latn",))


def test_later_languages_are_read_always_where_there_are_any(folder: Path, tmp_path: Path) -> None:
    assert set(read_flores(folder, ("fra_Latn",), always=("nqo_Nkoo",)).sentences) == {"fra_Latn", "nqo_Nkoo"}
    shutil.copytree(folder, tmp_path / "flores", ignore=shutil.ignore_patterns("nqo_Nkoo.*"))
    assert set(read_flores(tmp_path / "flores", ("fra_Latn",), always=("nqo_Nkoo",)).sentences) == {"fra_Latn"}
    with pytest.raises(UserError, match="1 languages are missing, such as lij_Latn"):
        read_flores(folder, ("fra_Latn",), always=("lij_Latn",))


def test_all_languages_means_all_of_the_table(folder: Path) -> None:
    with pytest.raises(UserError, match="199 languages are missing, such as ace_Arab"):
        load(folder)


def test_files_that_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        load(tmp_path / "nowhere", languages=("fra_Latn",))
    with pytest.raises(UserError, match="holds no FLORES data"):
        load(tmp_path, languages=("fra_Latn",))
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8bno archive")
    with pytest.raises(UserError, match=r"broken.tar.gz: cannot be read as a tar archive"):
        load(tmp_path / "broken.tar.gz", languages=("fra_Latn",))
    for split, code, change, message in (
        ("dev", "fra_Latn", lambda text: text + "one more\n", r"dev/fra_Latn.dev has 998 rows, and FLORES-200 has 997"),
        ("devtest", "eng_Latn", lambda text: text.replace("says devtest 7.", "\n", 1), "has 1013 rows"),
        ("dev", "eng_Latn", lambda text: text.replace("eng_Latn says dev 9.", " ", 1), "row 9 is empty"),
        ("devtest", "fra_Latn", lambda text: text.replace("devtest 5.", "dev 0.", 1), "dev 0.' is in devtest"),
    ):  # fmt: skip
        file = folder / split / f"{code}.{split}"
        before = file.read_bytes()
        file.write_bytes(change(before.decode()).encode())
        try:
            with pytest.raises(UserError, match=message):
                load(folder, languages=("fra_Latn",))
        finally:
            file.write_bytes(before)
