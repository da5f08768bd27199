"""The languages of FLORES-200: codes, English names, and other codes that corpora use for them.

`languages.json` has the 204 languages of the dataset's own table (`flores_200`), and other codes for them
(`other_codes`): ISO 639-1 codes, mapped to the default script or variety of the language; and three-letter codes that
are not unique in FLORES-200, or that name a group of which it has one member, as in NTREX.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from data_builders.errors import UserError
from data_builders.values import read_json

_TABLES: dict[str, dict[str, str]] = read_json(Path(__file__).with_suffix(".json"))
ENGLISH = "eng_Latn"
LANGUAGES = _TABLES["flores_200"]

# Later copies of the release have these too. They are not part of "all languages", but can be asked for by code.
LATER_LANGUAGES: dict[str, str] = {"nqo_Nkoo": "N'Ko"}

# FLORES+ labels some of the same texts differently; labels with a glottocode take precedence over those without.
FLORES_PLUS_LABELS: dict[str, str] = {
    "apc_Arab_nort3139": "apc_Arab",
    "apc_Arab_sout3123": "ajp_Arab",
    "cmn_Hans": "zho_Hans",
    "cmn_Hant": "zho_Hant",
    "ekk_Latn": "est_Latn",
    "fil_Latn": "tgl_Latn",
    "gug_Latn": "grn_Latn",
    "ktu_Latn": "kon_Latn",
    "twi_Latn_akua1239": "twi_Latn",
    "twi_Latn_asan1239": "aka_Latn",
    "zgh_Tfng": "tzm_Tfng",
}
# Varieties that FLORES+ added under the code of a language of the table.
FLORES_PLUS_VARIETIES = frozenset({"aran1260", "gard1241", "vale1252", "radical"})


def language_name(code: str) -> str:
    """Return the English name of a language, with its script if the table has several."""
    return LANGUAGES.get(code) or LATER_LANGUAGES[code]


def full_code(code: str) -> str:
    """Return a code with its script added if the language has only one; any other code unchanged."""
    scripts = [full for full in (*LANGUAGES, *LATER_LANGUAGES) if full.partition("_")[0] == code]
    return scripts[0] if len(scripts) == 1 else code


def require_language(code: str, available: Collection[str]) -> None:
    """Raise UserError unless `code` is a full code (language and script) in `available`; suggest similar codes."""
    if code in available:
        return
    known = {**LANGUAGES, **LATER_LANGUAGES}
    if code in known:
        raise UserError(f"languages: the data holds no {code} ({known[code]}); name a copy of the dataset that does")
    if scripts := sorted(full for full in known if full.partition("_")[0] == code.lower().partition("_")[0]):
        problem = "is ambiguous" if len(scripts) > 1 and "_" not in code else "is no code of FLORES-200"
        raise UserError(f"languages: {code!r} {problem}; use {' or '.join(scripts)} (codes are <language>_<Script>)")
    by_name = {name.lower(): full for full, name in known.items()}
    close = [by_name[name] for name in get_close_matches(code.lower(), by_name, n=3, cutoff=0.75)]
    close = close or get_close_matches(code, known, n=3, cutoff=0.6)
    hint = "; nearest: " + ", ".join(f"{full} ({known[full]})" for full in close) if close else ""
    raise UserError(f"languages: {code!r} is no code of FLORES-200{hint} (codes are <language>_<Script>: fra_Latn)")


def known_code(name: str) -> str | None:
    """Return the FLORES-200 code for a corpus's `name` of a language (`fra_Latn`, `ckb-Arab`, `fra`, `fr`), or None."""
    name = name.replace("-", "_")
    code = _TABLES["other_codes"].get(name) or full_code(name)
    return code if code in LANGUAGES or code in LATER_LANGUAGES else None
