"""Tokenizers of every family that keeps the bytes of texts, trained on the spot, and of some that do not."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPACE = "\u2581"
SAMPLE = (
    "The quick brown fox jumps over the lazy dog, and then it doesn't. There were 12 dogs, 345 foxes and 6,789 hens.\n",
    "She said: \"I'll be there at 10:30\", but they've left; we're here  (two spaces).\n",
    "def total(values):\n    result = 0\n    for value in values:\n        result += value\n    return result\n\n\n",
    "if x == 1:\n\tprint('one')\n\telse:\n\t\tpass\r\n",
    "В начале был текст, и текст был длинным. Привет, мир! Как дела?\n",
    "नमस्ते दुनिया। यह एक छोटा वाक्य है और यह दूसरा वाक्य है।\n",
    "สวัสดีชาวโลก นี่คือประโยคสั้นๆ และนี่คืออีกประโยคหนึ่ง\n",
    "你好，世界。这是一个句子，这是另一个句子。我们在这里写字。\n",
    "こんにちは、世界。これは短い文です。カタカナもあります。\n",
    "مرحبا بالعالم، هذه جملة قصيرة وهذه جملة أخرى.\n",
    "안녕하세요, 세계! 이것은 짧은 문장입니다.\n",
    "Γειά σου Κόσμε. Αυτή είναι μια μικρή πρόταση.\n",
    "שלום עולם, זה משפט קצר.\n",
    "Ẹ káàárọ̀ ayé, èyí jẹ́ gbólóhùn kúkurú. naïve café\n",
)
# What random texts are made of, besides parts of the sample.
PIECES = (
    "", " ", "  ", "    ", "\n", "\n\n", " \n", "\r\n", "\t", "\t ", "the ", " fox", "12", "345", " 6", "'s",
    "e\u0301", "q\u0323\u0307", "👩\u200d👧", "👍🏽", "🇯🇵", "🙂", "नि", "ำ", "。", "— ", "\u00a0", "\u3000", "\u200b",
    "<s>", "</s>", "<|im_end|>", "<pad>", "<0x41>", "> </", "<unk>", "\u0301", "\u1112\u1161\u11ab", "한",
    "ﬁ", "½", "١٢", "\x07", "AbC", "//", "x=[1,  2]", "¿", "don't", "a1b22,c;",
)  # fmt: skip
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")


def random_text(rng: random.Random, most: int = 8) -> str:
    """Return a text of parts of the sample and of what tokenizers differ in."""
    parts = []
    for _ in range(rng.randrange(most + 1)):
        sample = rng.choice(SAMPLE)
        start = rng.randrange(len(sample))
        parts.append(rng.choice((rng.choice(PIECES), sample[start : start + rng.randrange(1, 20)])))
    return "".join(parts)


def random_texts(seed: int, count: int) -> Iterator[str]:
    """Yield random texts, the same for the same seed."""
    rng = random.Random(seed)
    return (random_text(rng) for _ in range(count))


@cache
def gpt2_style() -> PreTrainedTokenizerBase:
    """Return byte-level BPE with GPT-2's pattern, as GPT-2's and SmolLM2's."""
    return _byte_level(400, [pre_tokenizers.ByteLevel(add_prefix_space=False)])


@cache
def llama3_style() -> PreTrainedTokenizerBase:
    """Return byte-level BPE with digits in groups of three, as Llama 3's."""
    return _byte_level(800, _split(LLAMA_3))


@cache
def qwen_style() -> PreTrainedTokenizerBase:
    """Return byte-level BPE that composes accents and cuts every digit, as Qwen's."""
    return _byte_level(600, _split(QWEN), normalizers.NFC())


@cache
def lone_digits() -> PreTrainedTokenizerBase:
    """Return byte-level BPE in which digits stand alone, as StarCoder's."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return _byte_level(500, [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


@cache
def tiny_bytes() -> PreTrainedTokenizerBase:
    """Return a tokenizer of the 256 bytes alone, which cuts characters."""
    return _byte_level(256, [pre_tokenizers.ByteLevel(add_prefix_space=False)])


@cache
def prefixed_bytes() -> PreTrainedTokenizerBase:
    """Return byte-level BPE that begins a text with a space unless it has one."""
    return _byte_level(450, [pre_tokenizers.ByteLevel(add_prefix_space=True)])


@cache
def across_words() -> PreTrainedTokenizerBase:
    """Return byte-level BPE without a pattern, which has tokens of several words."""
    return _byte_level(600, [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@cache
def llama2_style() -> PreTrainedTokenizerBase:
    """Return pieces with byte fallback and a space before every text, as Llama 2's."""
    tokenizer = _pieces(700, [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    return _ready(tokenizer, decoders.Strip(" ", 1, 0))


@cache
def gemma_style() -> PreTrainedTokenizerBase:
    """Return pieces with byte fallback, none of a text's beginning, and runs of line breaks as tokens, as Gemma's."""
    tokenizer = _pieces(800, [normalizers.Replace(" ", SPACE)])
    runs = ["\n" * count for count in range(1, 8)] + [SPACE * count for count in range(2, 8)]
    tokenizer.add_tokens([AddedToken(run, normalized=False) for run in runs])
    return _ready(tokenizer)


@cache
def unigram() -> PreTrainedTokenizerBase:
    """Return unigram pieces with byte fallback and a space before a text, that know their markers as pieces too."""
    # Trained pieces differ from process to process; these are the same everywhere.
    words = [SPACE + word for text in SAMPLE for word in text.split()]
    counts = Counter(
        word[start:end] for word in words for start in range(len(word)) for end in range(start + 1, start + 6)
    )
    frequent = sorted(counts, key=lambda piece: (-counts[piece] * len(piece), piece))[:500]
    known = [
        (piece, math.log(counts[piece] / counts.total())) for piece in frequent if piece.isascii() or SPACE in piece
    ]
    markers = [(name, 0.0) for name in ("<unk>", "<s>", "</s>", "<pad>")]
    vocabulary = [*markers, *((name, -20.0) for name in _bytes()), *known]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return _ready(tokenizer, decoders.Strip(" ", 1, 0))


@cache
def word_piece() -> PreTrainedTokenizerBase:
    """Return word pieces, as BERT's."""
    words = {word for text in SAMPLE for word in text.lower().split()}
    letters = {letter for word in words for letter in word}
    pieces = ["<unk>", *sorted({*words, *letters, *(f"##{letter}" for letter in letters)})]
    tokenizer = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return _wrapped(tokenizer)


@cache
def lower_casing() -> PreTrainedTokenizerBase:
    """Return byte-level BPE of lower-case letters."""
    return _byte_level(300, [pre_tokenizers.ByteLevel(add_prefix_space=False)], normalizers.Lowercase())


@cache
def compatible_letters() -> PreTrainedTokenizerBase:
    """Return byte-level BPE that folds wide letters and signs."""
    return _byte_level(300, [pre_tokenizers.ByteLevel(add_prefix_space=False)], normalizers.NFKC())


@cache
def compatible_pieces() -> PreTrainedTokenizerBase:
    """Return pieces with byte fallback that fold wide letters and signs."""
    return _ready(_pieces(500, [normalizers.NFKC(), normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]))


@cache
def dropping_spaces() -> PreTrainedTokenizerBase:
    """Return whole words, without what is between them."""
    words = sorted({word for text in SAMPLE for word in text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(["<unk>", *words])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrapped(tokenizer)


@cache
def without_bytes() -> PreTrainedTokenizerBase:
    """Return unigram pieces without bytes for what they do not know."""
    pieces = [("<unk>", 0.0), (SPACE, -3.0), *((letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyzH,.!")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    return _wrapped(tokenizer)


Maker = Callable[[], PreTrainedTokenizerBase]
FAMILIES: dict[str, Maker] = {make.__name__: make for make in (
    gpt2_style, llama3_style, qwen_style, lone_digits, tiny_bytes, prefixed_bytes, across_words, llama2_style,
    gemma_style, unigram,
)}  # fmt: skip
REFUSED: dict[str, Maker] = {make.__name__: make for make in (
    word_piece, lower_casing, compatible_letters, compatible_pieces, dropping_spaces, without_bytes,
)}  # fmt: skip


def _byte_level(size: int, steps: list[object], normalizer: object = None) -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizers.Sequence(steps)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return _wrapped(tokenizer)


def _split(pattern: str) -> list[object]:
    return [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _pieces(size: int, steps: list[object]) -> Tokenizer:
    """Return BPE of pieces: markers, bytes, and what is merged from frequent characters."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", SPACE)
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(f"{SPACE}*[^{SPACE}]+"), "isolated")
    # Given all of them, the trainer does not choose among equally frequent ones, each time others.
    letters = Counter("".join(SAMPLE).replace(" ", SPACE))
    alphabet = sorted(letters, key=lambda letter: (-letters[letter], letter))[:120]
    trainer = trainers.BpeTrainer(
        vocab_size=size - 260, limit_alphabet=len(alphabet), initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator(SAMPLE, trainer)
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", "<pad>", *_bytes(), *sorted(model["vocab"], key=model["vocab"].__getitem__)]
    vocabulary = {name: place for place, name in enumerate(names)}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _bytes() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _ready(tokenizer: Tokenizer, *last: object) -> PreTrainedTokenizerBase:
    """Give a tokenizer of pieces its decoder."""
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *last]
    tokenizer.decoder = decoders.Sequence(steps)
    return _wrapped(tokenizer, unk_token="<unk>")


def _wrapped(tokenizer: Tokenizer, **more: object) -> PreTrainedTokenizerBase:
    """Return a tokenizer as transformers has them, which begins every text with a marker."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, extra_special_tokens=["<|im_end|>"], **names, **more)
    begins = [("<s>", wrapped.bos_token_id)]
    wrapped.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=begins)
    return wrapped
