"""The model card (README.md) beside a checkpoint of a model stored in parts."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from calmctl.escaping import md_code, md_text, url_path, visible
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
```python
import calmctl  # or, without this line: trust_remote_code=True below
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({name})
```
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


def write_card(model: PartsModel, directory: Path, name: str = "") -> None:
    """Write README.md into a checkpoint, unless one is there that calmctl did not write or that was edited.

    Args:
        name: of the model; empty = that of the folder.
    """
    path = directory / CARD_FILE
    if not path.exists() or _is_untouched(path.read_text(encoding="utf-8", errors="replace")):
        write_text(path, model_card(model, name or directory.resolve().name))


def model_card(model: PartsModel, name: str) -> str:
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
        USE.format(name=json.dumps(visible(" ".join(name.split())), ensure_ascii=False)),
    ]
    if training := model.config.training:
        facts = [[md_text(str(part)) for part in pair] for pair in training.items()]
        parts += ["## Training\n", _table(["", ""], facts)]
    parts += ["## Citation\n", CITATION]
    metadata = yaml.safe_dump(_metadata(model), sort_keys=False)
    text = visible(f"---\n{metadata}---\n{MARK}\n\n" + "\n".join(parts))
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
    return md_code(base["subfolder"] if "subfolder" in base else Path(base.get("source") or "(unnamed)").name)


def _where_bases_are(bases: list[dict[str, Any]]) -> str:
    if all("subfolder" in base for base in bases):
        return "The weights of the bases are in this folder.\n"
    text = "The weights of the bases are not in this folder; loading checks that they are the ones above.\n"
    if not all(hub_id(base) for base in bases):
        text += "Bases that are not on the hub are given as `from_pretrained(..., anchor=..., augs=[...])`.\n"
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
