"""Configurations of well-known hub models, so that plans need no download.

`public_shapes.json` has, by hub id: the settings of its `config.json` that decide shapes and memory (`config`), how
many token ids its tokenizer can produce (`token_ids`; a vocabulary may be padded beyond them), and the number of
parameters on its hub page (`parameters`), which a test counts again.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from calmctl.errors import UserError
from calmctl.modeling.bases.locating import locate
from calmctl.modeling.bases.sources import base_config
from data_builders.values import read_json

SHAPES_FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Shape:
    """The configuration of a model, and where it is known from.

    Attributes:
        is_public: it is from the table of public shapes; the model itself is not here.
        token_ids: number of ids that its tokenizer can produce, if the table says so.
    """

    config: PreTrainedConfig
    is_public: bool = False
    token_ids: int | None = None


@cache
def public_shapes() -> dict[str, dict[str, Any]]:
    """Return the table: hub id -> settings."""
    return read_json(SHAPES_FILE)


def shape_of(source: str) -> Shape:
    """Return the shape of a run, a folder or a model in the hub's cache, else that in the table; download nothing.

    Raises:
        UserError: it is in none of them.
    """
    name, _ = locate(source)
    known = public_shapes().get(name)
    try:
        return Shape(base_config(source, local_files_only=True), token_ids=known["token_ids"] if known else None)
    except UserError:
        if Path(name).exists():
            raise
        if known is None:
            raise UserError(
                f"{source!r} is neither a folder nor in the cache of the hub, and its shape is not known; download it, "
                f"or name one of {', '.join(public_shapes())}"
            ) from None
    settings = dict(known["config"])
    return Shape(AutoConfig.for_model(settings.pop("model_type"), **settings), True, known["token_ids"])
