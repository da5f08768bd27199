"""Small tokenizers of every kind, with special tokens inside of texts, and a model that writes a given text."""

import string

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

INSIDE = ["[DONE]", "\n", "    "]
LETTERS = "bcdefghijklmnopqrstuvwxyz"  # no "a": nothing may depend on a letter


def byte_level(**more: object) -> PreTrainedTokenizerBase:
    """Return a tokenizer of bytes as GPT-2's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({byte: place for place, byte in enumerate(alphabet)}, []))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return _ready(backend, **more)


def byte_level_nfkc() -> PreTrainedTokenizerBase:
    """Return a tokenizer of bytes that folds wide letters and signs."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    return tokenizer


def sentencepiece() -> PreTrainedTokenizerBase:
    """Return pieces after NFKC with a space before each text and bytes for the rest, as Llama's and Gemma's."""
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [(piece, -3.0) for piece in ("\u2581", *LETTERS, *string.digits, ":", ".", "\u2581the", "st", "问题:")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    ])  # fmt: skip
    return _ready(backend)


def collapsing() -> PreTrainedTokenizerBase:
    """Return pieces of a tokenizer to which all white space is one space, as T5's and ALBERT's."""
    pieces = [("<unk>", 0.0), *((piece, -3.0) for piece in ("\u2581", *"bcdehst:Q", *string.digits, "\u2581the"))]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return _ready(backend, inside=["[DONE]"], unk_token="<unk>")


def word_pieces() -> PreTrainedTokenizerBase:
    """Return lower-case word pieces, as BERT's."""
    vocabulary = [
        "[UNK]",
        *LETTERS,
        *(f"##{letter}" for letter in LETTERS),
        *string.digits,
        ":",
        ".",
        "?",
        "the",
        "##st",
    ]
    backend = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return _ready(backend, inside=["[DONE]"], unk_token="[UNK]")


def characters() -> PreTrainedTokenizerBase:
    """Return a tokenizer of characters that knows no "a", no newline but as a special token, and nothing else."""
    known = {character: place for place, character in enumerate(f"?{LETTERS}{string.digits} :().")}
    backend = Tokenizer(models.WordLevel(known, unk_token="?"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split(Regex("."), "isolated"), decoders.Fuse()
    return _ready(backend, unk_token="?")


def words() -> PreTrainedTokenizerBase:
    """Return a tokenizer of a few words and of line breaks, that cannot read any other text."""
    known = {word: place for place, word in enumerate(["the", "st", ":", "bcd", "1", "e", ".", "x", "c", "b", "7"])}
    backend = Tokenizer(models.WordLevel(known))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return _ready(backend)


TOKENIZERS = {make.__name__: make for make in (
    byte_level, byte_level_nfkc, sentencepiece, collapsing, word_pieces, characters, words,
)}  # fmt: skip
TEMPLATES = ("<s> $A", "$A </s>", "<s> $A </s>", "<s> <s> $A </s> </s>", "$A")


def _ready(backend: Tokenizer, inside: list[str] = INSIDE, **more: object) -> PreTrainedTokenizerBase:
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=inside, **names, **more)


def framed(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    """Let a tokenizer put special tokens around a text."""
    special = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


def that_writes(new_ids: list[int], tokenizer: PreTrainedTokenizerBase, num_before: int) -> PreTrainedModel:
    """Return a model that writes these ids after a prompt of so many tokens, whatever that says, and then the end."""
    positions = max(num_before + len(new_ids) + 1, 32)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=4 * (positions // 4 + 1), n_layer=1, n_head=1, n_positions=positions,
        tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(model.transformer.ln_f.weight)
    with torch.no_grad():
        model.transformer.wpe.weight.fill_diagonal_(100.0)
        for place, token in enumerate([*new_ids, tokenizer.eos_token_id], start=num_before - 1):
            model.lm_head.weight[token, place] = 1.0
    return model
