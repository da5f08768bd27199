"""The model card (README.md) beside a checkpoint of a model stored in parts."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from calmctl.escaping import md_code, md_text, url_path, visible
from calmctl.modeling.bases.locating import name_of
from calmctl.modeling.configuration import ComposedConfig
from calmctl.modeling.options import SEGMENTATIONS
from calmctl.modeling.stored.parts import PartsModel
from calmctl.version import VERSION
from data_builders.files import write_text

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
CARD_FILE = "README.md"
PAPER = "2401.02412"
# A card whose text no longer has this checksum was edited, and is not overwritten.
MARK = "<!-- Written by calmctl {checksum}. Once edited, this file is never overwritten. -->"
USE = """\
{where}

```bash
calmctl generate "a prompt" --model {place} --max-new-tokens 32
```

```python
import calmctl  # or, without this line: trust_remote_code=True below
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({quoted})
tokenizer = AutoTokenizer.from_pretrained({quoted})
```
"""
PLAIN_USE = """\
```python
from transformers import pipeline

pipeline("text-generation", {quoted})("a prompt")
```
"""
ELSEWHERE = """\
Bases that are not on the hub are looked for relative to this folder. If they are elsewhere, say where:
`--anchor ANCHOR{option}`, in Python `from_pretrained(..., anchor="ANCHOR"{argument})`.
"""
ABSOLUTE = """\
`config.json` also has the absolute path that a base had where this folder was written.
"""
OWN_TOKENIZERS = """\
The model is called with the anchor's tokens. What augs with tokenizers of their own read is found from these by the
model itself, with tokenizers that are stored in this folder.
"""
CITATION = f"""\
CALM: *LLM Augmented LLMs: Expanding Capabilities through Composition*, arXiv:{PAPER}.

```bibtex
@article{{bansal2024calm,
  title = {{{{LLM}} Augmented {{LLMs}}: Expanding Capabilities through Composition}},
  author = {{Bansal, Rachit and others}},
  journal = {{arXiv preprint arXiv:{PAPER}}},
  year = {{2024}}
}}
```
"""


def write_card(model: PartsModel, directory: Path, name: str = "", hub_name: str = "") -> None:
    """Write README.md into a checkpoint, unless one is there that calmctl did not write or that was edited.

    Args:
        name: of the model; empty = that of the folder.
        hub_name: id on the hub that the folder is for; empty = none.
    """
    if not is_edited(directory / CARD_FILE):
        write_text(directory / CARD_FILE, model_card(model, name or directory.resolve().name, hub_name))


def write_plain_card(model: PartsModel, directory: Path, name: str, hub_name: str = "") -> None:
    """Write README.md beside the plain model that adapters and their anchor were merged into."""
    (base,) = model.config.bases
    introduction = model.card_sections()[0].rstrip()
    place = json.dumps(hub_name or ".")
    parts = [
        f"# {md_text(name)}\n",
        f"{introduction}\nThe adapters are added to the weights of {_base_name(base)}: a plain model.\n",
        "## Use\n",
        *([] if hub_name else ["In this folder:\n"]),
        PLAIN_USE.format(quoted=place),
        *_training_section(model),
    ]
    tags = {"base_model": hub_id(base), "base_model_relation": "finetune"} if hub_id(base) else {}
    metadata = {"library_name": "transformers", "pipeline_tag": "text-generation", **tags}
    write_text(directory / CARD_FILE, _signed(metadata, parts))


def is_edited(card: Path) -> bool:
    """Tell whether a card is there that calmctl did not write or that was edited."""
    return card.exists() and not _is_untouched(card.read_text(encoding="utf-8", errors="replace"))


def model_card(model: PartsModel, name: str, hub_name: str = "") -> str:
    """Return the card of a model whose configuration records its bases, as that of a saved one does."""
    bases = model.config.bases
    introduction, *trained = model.card_sections()
    parts = [
        f"# {md_text(name)}\n",
        introduction,
        "## Bases\n",
        _table(["", "model", "revision", "class", "dtype", "parameters", "weights (SHA-256)"], _base_rows(model)),
        _where_bases_are(bases),
        *trained,
        "## Use\n",
        USE.format(
            where=f"With calmctl {VERSION}" + (":" if hub_name else ", in this folder:"),
            place=hub_name or ".",
            quoted=json.dumps(hub_name or "."),
        ),
        *_training_section(model),
        "## Citation\n",
        CITATION,
    ]
    return _signed(_metadata(model), parts)


def _training_section(model: PartsModel) -> list[str]:
    if not (training := model.config.training):
        return []
    facts = [[md_text(str(part)) for part in pair] for pair in training.items()]
    return ["## Training\n", _table(["", ""], facts)]


def _signed(metadata: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Return the text of a card with its metadata and its checksum."""
    text = f"---\n{yaml.safe_dump(dict(metadata), sort_keys=False)}---\n{MARK}\n\n"
    text = visible(text + "\n".join(parts))
    return text.replace("{checksum}", _checksum(text), 1)


def composition_sections(
    config: ComposedConfig, num_heads: int, num_trainable: int, markers: Sequence[Sequence[tuple[str, str]] | None]
) -> list[str]:
    """Return the card's sections on a composed model and its bridges.

    Args:
        num_heads: of a bridge.
        num_trainable: number of trained parameters.
        markers: per aug with its own tokenizer, the anchor's markers and what it reads in their place; None for others.
    """
    sections = [
        f"A frozen anchor that reads {_count(len(config.augs), 'frozen aug')} through trained cross-attention bridges "
        f"([CALM](https://arxiv.org/abs/{PAPER})), composed with calmctl {VERSION}.\n",
        "## Bridges\n",
        _table(["aug", "connections (aug layer → anchor layer)"], _connection_rows(config)),
        _bridge_form(config, num_heads, num_trainable),
    ]
    if rows := _tokenizer_rows(config, markers):
        head = ["aug", "reads", "tokenizer (SHA-256)", "the anchor's", "in the place of markers"]
        sections += ["## Tokenizers\n", OWN_TOKENIZERS, _table(head, rows)]
    return sections


def hub_id(base: Mapping[str, Any]) -> str | None:
    """Return the hub id that a checkpoint records for a base; None = a local or unnamed base."""
    source = base.get("source") or ""
    return source if HUB_ID.fullmatch(source) and "relative_source" not in base else None


def _metadata(model: PartsModel) -> dict[str, Any]:
    tags = ["calm", "composition", *(getattr(model, "model_tags", None) or [])]
    metadata: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": list(dict.fromkeys(tags)),
    }
    if ids := [name for base in model.config.bases if (name := hub_id(base))]:
        metadata |= {"base_model": list(dict.fromkeys(ids)), "base_model_relation": "adapter"}
    return metadata


def _base_rows(model: PartsModel) -> list[list[str]]:
    rows = []
    for index, (base, settings) in enumerate(
        zip(model.config.bases, [model.config.anchor, *model.config.augs], strict=True)
    ):
        print_of = base["fingerprint"]
        quantized = (settings.get("quantization_config") or {}).get("quant_method")
        rows.append(
            [
                _role(index, len(model.config.bases)),
                _base_name(base),
                str(base.get("revision") or "")[:12],
                print_of["architecture"],
                f"{print_of['dtype']}, {getattr(quantized, 'value', quantized)}" if quantized else print_of["dtype"],
                f"{print_of['num_parameters']:,}",
                f"`{print_of['weights_sha256'][:12]}`",
            ]
        )
    return rows


def _role(index: int, count: int) -> str:
    return "anchor" if index == 0 else "aug" if count == 2 else f"aug {index - 1}"


def _base_name(base: Mapping[str, Any]) -> str:
    """Return a link to a base on the hub, or the name of its folder, without its path, which is private."""
    if "untrained_seed" in base:
        return f"untrained weights, seed {base['untrained_seed']}"
    if name := hub_id(base):
        return f"[{md_text(name)}](https://huggingface.co/{url_path(name)})"
    known = (base[key] for key in ("subfolder", "source", "relative_source") if base.get(key))
    return md_code(name_of(next(known, "(unnamed)")))


def _where_bases_are(bases: list[dict[str, Any]]) -> str:
    if all("subfolder" in base for base in bases):
        return "The weights of the bases are in this folder.\n"
    text = "The weights of the bases are not in this folder; loading checks that they are the ones above.\n"
    if not all(hub_id(base) for base in bases):
        augs = len(bases) - 1
        option, names = " --aug AUG" * augs, ", ".join(['"AUG"'] * augs)
        text += ELSEWHERE.format(option=option, argument=f", augs=[{names}]" if augs else "")
    if any("relative_source" in base and base.get("source") for base in bases):
        text += ABSOLUTE
    return text


def _connection_rows(config: ComposedConfig) -> list[list[str]]:
    count = len(config.bases)
    return [
        [_role(index, count), ", ".join(f"{aug_layer} → {anchor_layer}" for aug_layer, anchor_layer in pairs)]
        for index, pairs in enumerate(config.connections, start=1)
    ]


def _tokenizer_rows(config: ComposedConfig, markers: Sequence[Sequence[tuple[str, str]] | None]) -> list[list[str]]:
    """Return the table rows on how augs with their own tokenizer read."""
    rows = []
    for index, (pairs, settings) in enumerate(zip(markers, config.segmentations, strict=True), start=1):
        if pairs is not None and settings is not None:
            hashes = [f"`{settings[f'{role}_sha256'][:12]}`" for role in ("aug", "anchor")]
            rows.append(
                [
                    _role(index, len(config.bases)),
                    SEGMENTATIONS[settings["kind"]],
                    *hashes,
                    ", ".join(f"{md_code(ours)}: {md_code(theirs)}" for ours, theirs in pairs),
                ]
            )
    return rows


def _bridge_form(config: ComposedConfig, num_heads: int, num_trainable: int) -> str:
    share = num_trainable / config.bases[0]["fingerprint"]["num_parameters"]
    form = ", ".join(f"{key} = {value}" for key, value in {**config.bridge, "num_heads": num_heads}.items())
    return f"Each bridge: {form}.\nTrainable parameters: {num_trainable:,}, {share:.1%} of the anchor's.\n"


def _count(number: int, noun: str) -> str:
    return f"a {noun}" if number == 1 else f"{number} {noun}s"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _is_untouched(text: str) -> bool:
    start, end = MARK.split("{checksum}")
    head, found, rest = text.partition(start)
    checksum, _, tail = rest.partition(end)
    return bool(found) and checksum == _checksum(f"{head}{start}{{checksum}}{end}{tail}")


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
