"""The tokenizer class for `trust_remote_code=True`, which reads text exactly as tokenizer.json says."""

from transformers import PreTrainedTokenizerFast


class StoredTokenizer(PreTrainedTokenizerFast):
    """Reads text as in training, whatever the type of the model beside it."""
