"""The tokenizer beside a model, exactly as its tokenizer.json says: what `trust_remote_code=True` reads it with."""

from transformers import PreTrainedTokenizerFast


class StoredTokenizer(PreTrainedTokenizerFast):
    """Reads text as the tokenizer did that the model was trained with, whatever the type of the model is."""
