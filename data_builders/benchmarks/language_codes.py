"""Codes that corpora name languages by, as codes of FLORES-200: ISO 639-1, ISO 639-3 and macro-languages."""

from __future__ import annotations

from data_builders.benchmarks.flores_languages import LANGUAGES, LATER_LANGUAGES, full_code

# ISO 639-1, where FLORES-200 has the language; of several scripts or varieties, the one that is meant without more.
_TWO_LETTERS = """
af afr_Latn|am amh_Ethi|ar arb_Arab|as asm_Beng|ay ayr_Latn|az azj_Latn|ba bak_Cyrl|be bel_Cyrl|bg bul_Cyrl|bm bam_Latn
bn ben_Beng|bo bod_Tibt|bs bos_Latn|ca cat_Latn|cs ces_Latn|cy cym_Latn|da dan_Latn|de deu_Latn|dz dzo_Tibt|ee ewe_Latn
el ell_Grek|en eng_Latn|eo epo_Latn|es spa_Latn|et est_Latn|eu eus_Latn|fa pes_Arab|fi fin_Latn|fj fij_Latn|fo fao_Latn
fr fra_Latn|ga gle_Latn|gd gla_Latn|gl glg_Latn|gn grn_Latn|gu guj_Gujr|ha hau_Latn|he heb_Hebr|hi hin_Deva|hr hrv_Latn
ht hat_Latn|hu hun_Latn|hy hye_Armn|id ind_Latn|ig ibo_Latn|is isl_Latn|it ita_Latn|ja jpn_Jpan|jv jav_Latn|ka kat_Geor
kg kon_Latn|ki kik_Latn|kk kaz_Cyrl|km khm_Khmr|kn kan_Knda|ko kor_Hang|ku kmr_Latn|ky kir_Cyrl|lb ltz_Latn|lg lug_Latn
li lim_Latn|ln lin_Latn|lo lao_Laoo|lt lit_Latn|lv lvs_Latn|mg plt_Latn|mi mri_Latn|mk mkd_Cyrl|ml mal_Mlym|mn khk_Cyrl
mr mar_Deva|ms zsm_Latn|mt mlt_Latn|my mya_Mymr|nb nob_Latn|ne npi_Deva|nl nld_Latn|nn nno_Latn|no nob_Latn|ny nya_Latn
oc oci_Latn|om gaz_Latn|or ory_Orya|pa pan_Guru|pl pol_Latn|ps pbt_Arab|pt por_Latn|qu quy_Latn|rn run_Latn|ro ron_Latn
ru rus_Cyrl|rw kin_Latn|sa san_Deva|sc srd_Latn|sd snd_Arab|sg sag_Latn|si sin_Sinh|sk slk_Latn|sl slv_Latn|sm smo_Latn
sn sna_Latn|so som_Latn|sq als_Latn|sr srp_Cyrl|ss ssw_Latn|st sot_Latn|su sun_Latn|sv swe_Latn|sw swh_Latn|ta tam_Taml
te tel_Telu|tg tgk_Cyrl|th tha_Thai|ti tir_Ethi|tk tuk_Latn|tl tgl_Latn|tn tsn_Latn|tr tur_Latn|ts tso_Latn|tt tat_Cyrl
ug uig_Arab|uk ukr_Cyrl|ur urd_Arab|uz uzn_Latn|vi vie_Latn|wo wol_Latn|xh xho_Latn|yi ydd_Hebr|yo yor_Latn|zh zho_Hans
zu zul_Latn
"""
# Three letters that are not unique in FLORES-200, or name a group of which it has one member (as NTREX does).
_THREE_LETTERS = """
arb arb_Arab|aze azj_Latn|aze_Latn azj_Latn|fas pes_Arab|fil tgl_Latn|lav lvs_Latn|mlg plt_Latn|mon khk_Cyrl
msa zsm_Latn|nep npi_Deva|orm gaz_Latn|pus pbt_Arab|sqi als_Latn|srp_Cyrl srp_Cyrl|swa swh_Latn|uzb uzn_Latn
zho_CN zho_Hans|zho_TW zho_Hant
"""
_OTHER_CODES = {
    name: code
    for table in (_TWO_LETTERS, _THREE_LETTERS)
    for name, code in (entry.split() for entry in table.strip().replace("\n", "|").split("|"))
}
# What NusaX calls its languages; FLORES-200 has no Madurese, Ngaju and Toba Batak.
NUSAX_NAMES = {
    "acehnese": "ace_Latn",
    "balinese": "ban_Latn",
    "banjarese": "bjn_Latn",
    "buginese": "bug_Latn",
    "english": "eng_Latn",
    "indonesian": "ind_Latn",
    "javanese": "jav_Latn",
    "minangkabau": "min_Latn",
    "sundanese": "sun_Latn",
}


def known_code(name: str) -> str | None:
    """Return the code of FLORES-200 that a corpus means by `name` (`fra_Latn`, `ckb-Arab`, `fra`, `fr`), or None."""
    name = name.replace("-", "_")
    code = _OTHER_CODES.get(name) or full_code(name)
    return code if code in LANGUAGES or code in LATER_LANGUAGES else None
