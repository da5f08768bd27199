"""Store tokenizers beside models, and check that they are loaded again as tokenizers that read text alike.

`AutoTokenizer` chooses the class of a tokenizer by the type of the model beside it, and some classes (Qwen 2's) replace
the stored normaliser and pre-tokeniser. `auto_map` in tokenizer_config.json prevents that: transformers prefers the
code that it names, or, where that is not trusted, the class in the file.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.modeling.bases.sources import is_own_code, load_tokenizer
from calmctl.modeling.tokenizers.same_ids import differences_in_json, reading, special_ids
from calmctl.processes.garbage import without_collection
from data_builders.files import write_text
from data_builders.values import read_json, write_json

SETTINGS_FILE = "tokenizer_config.json"
CODE_FILE = "tokenization_calm.py"
AUTO_MAP = {"AutoTokenizer": [None, "tokenization_calm.StoredTokenizer"]}
# Loads tokenizer.json as it is; transformers 5 calls it TokenizersBackend, and knows both names.
GENERIC = "PreTrainedTokenizerFast"


@without_collection()
def store_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a tokenizer beside a model, then load it again and compare how both read text.

    Args:
        folder: the model's; config.json is there already.

    Raises:
        UserError: the loaded tokenizer reads text in another way.
    """
    tokenizer.save_pretrained(folder)
    settings = read_json(folder / SETTINGS_FILE)
    if settings.get("auto_map") == AUTO_MAP:
        # Left over from the folder it was loaded from; here it may not be needed.
        del settings["auto_map"]
        write_json(folder / SETTINGS_FILE, settings)
    if (difference := _difference(tokenizer, folder)) is None:
        return
    if hasattr(tokenizer, "backend_tokenizer"):
        write_json(folder / SETTINGS_FILE, {**settings, "tokenizer_class": GENERIC, "auto_map": AUTO_MAP})
        write_text(folder / CODE_FILE, Path(__file__).with_name(CODE_FILE).read_text(encoding="utf-8"))
        if (difference := _difference(tokenizer, folder)) is None:
            return
    model_type = read_json(folder / "config.json").get("model_type")
    raise UserError(
        f"the tokenizer, a {type(tokenizer).__name__}, is read back otherwise beside a model of type {model_type}: "
        f"{difference}; use the tokenizer of a model of this type, or another type of model"
    )


def check_storable(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Refuse, before training, a tokenizer that could not be stored beside a model of this configuration.

    Raises:
        UserError: see `store_tokenizer`.
    """
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        store_tokenizer(tokenizer, Path(folder))


def _difference(tokenizer: PreTrainedTokenizerBase, folder: Path) -> str | None:
    """Return the first difference between a tokenizer and the one loaded from a folder, or None."""
    try:
        other = load_tokenizer(str(folder), trust_remote_code=is_own_code(tokenizer))
    except UserError as error:
        return str(error)
    for what, of in (("special tokens", special_ids), ("texts", reading), ("the chat template", _chat_template)):
        if of(tokenizer) != of(other):
            return f"{what} are {_short(of(tokenizer))} and become {_short(of(other))}"
    return next(differences_in_json(tokenizer, other), None)


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> object:
    return tokenizer.chat_template


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:100]}..."
