"""A byte-level BPE tokenizer trained on a corpus: every text comes back exactly, digits are tokens each.

White space is kept as it is, and runs of it, such as an indentation, may become one token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from data_builders.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
MODEL_MAX_LENGTH = 1 << 20
MIN_SIZE = 256 + 2
# Words with the character before them, single digits, signs, line ends, and white space without its last character,
# which goes with the word that follows.
_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of `size` tokens, fewer where the texts do not give so many.

    Raises:
        DataError: `size` has no room for the 256 bytes and the two special tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if size < MIN_SIZE:
        raise DataError(
            f"vocab_size: {size} is too small for every byte and two special tokens; use {MIN_SIZE} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        split_special_tokens=True,  # source code about tokenizers is full of "<pad>" and "<eos>"
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL_MAX_LENGTH,
    )
