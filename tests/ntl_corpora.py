"""Small corpora in every layout that `calmctl data ntl` reads, and a FLORES of the same made-up languages."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_builders.benchmarks.flores import ROWS
from data_builders.ntl.build import CorporaConfig, NTLDataConfig

# Letters that the words of each language are made of.
ALPHABETS = {
    "eng_Latn": "abcdefghinorstu",
    "lij_Latn": "açéimnoôruxæt",
    "fur_Latn": "acdefgilnorstuâ",
    "fra_Latn": "abcdeéilmnorstu",
    "hin_Deva": "कखगतनपमरलसािीुे",
}
LANGUAGES = ("lij_Latn", "fur_Latn")
# Files of a build.
FILES = [f"{name}_{split}" for name in ("aug", "anchor", "dc") for split in ("train", "validation")]


@cache
def sentences(code: str, count: int, what: str = "corpus") -> tuple[str, ...]:
    """Return sentences of 6 to 14 words out of a vocabulary of 400, the same for the same arguments."""
    rng = np.random.default_rng([len(what), *f"{what}{code}".encode()])
    letters = ALPHABETS[code]
    words = ["".join(rng.choice(list(letters), rng.integers(2, 9))) for _ in range(400)]
    return tuple(f"{' '.join(rng.choice(words, rng.integers(6, 15)))} {row}." for row in range(count))


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    """Write lines, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_seed(folder: Path, count: int = 300, languages: Sequence[str] = LANGUAGES) -> Path:
    """Write NLLB-Seed as a release of the multi-text has it: `<code>.gz`."""
    for code in ("eng_Latn", *languages):
        write_lines(folder / f"{code}.gz", sentences(code, count))
    (folder / "README.original.md").write_text("# Seed\n")
    return folder


def write_ntrex(folder: Path, count: int = 200) -> Path:
    """Write NTREX: `newstest2019-{src,ref}.<code>.txt`; a language that FLORES-200 does not have, too."""
    write_lines(folder / "newstest2019-src.eng.txt", sentences("eng_Latn", count, "news"))
    write_lines(folder / "newstest2019-ref.fra.txt.gz", sentences("fra_Latn", count, "news"))
    write_lines(folder / "newstest2019-ref.ton.txt", sentences("eng_Latn", count, "tongan"))
    return folder


def write_nusax(folder: Path, count: int = 40) -> Path:
    """Write NusaX: three CSV files with a column a language, some of them without a code of FLORES-200."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        columns = [sentences(code, count, split) for code in ("fra_Latn", "lij_Latn", "eng_Latn", "fur_Latn")]
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["", "indonesian", "acehnese", "english", "madurese"])
            writer.writerows([row, *values] for row, values in enumerate(zip(*columns, strict=True)))
    return folder


def write_flores(folder: Path, languages: Sequence[str] = ("eng_Latn", *LANGUAGES, "fra_Latn")) -> Path:
    """Write the official layout of FLORES-200, of a few languages."""
    for split, count in ROWS.items():
        for code in languages:
            write_lines(folder / split / f"{code}.{split}", sentences(code, count, split))
    return folder


def write_corpora(folder: Path) -> NTLDataConfig:
    """Write NLLB-Seed, NTREX and FLORES; return the settings of a small build of them."""
    write_seed(folder / "seed")
    write_ntrex(folder / "ntrex")
    write_flores(folder / "flores")
    return NTLDataConfig(
        data_folder=str(folder),
        aug=CorporaConfig(parallel=("seed",), languages=LANGUAGES),
        anchor=CorporaConfig(parallel=("seed", "ntrex"), languages=("fra_Latn",), text_languages=("eng_Latn",)),
        flores="flores",
        flores_languages=("eng_Latn", *LANGUAGES, "fra_Latn"),
        validation_fraction=0.1,
        num_validation_rows=50,
        vocab_size=600,
    )


def with_aug(config: NTLDataConfig, *parallel: str, languages: Sequence[str] = LANGUAGES) -> NTLDataConfig:
    """Return the settings with other corpora for the aug."""
    return replace(config, aug=replace(config.aug, parallel=parallel, languages=tuple(languages)))


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the rows of a file of a build."""
    found: list[dict[str, Any]] = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return found


def texts(folder: Path, name: str) -> list[str]:
    """Return the whole texts of the rows of a file of a build."""
    return [row.get("text") or row["prompt"] + row["completion"] for row in rows(folder, name)]
