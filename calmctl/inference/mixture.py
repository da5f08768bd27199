"""Mixture: two models generate a text together, byte by byte, without any training.

At every byte their next-byte probabilities (see `byte_reading`) are averaged. Ensembles of language models do this
token by token; bytes make it work for models whose tokenizers differ.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.inference.byte_reading import END, ByteReader, Chances, passes_over
from calmctl.inference.decoding import NotFiniteError, ready_to_write
from calmctl.inference.prompt import FittedPrompts, Row, vocabulary_size
from calmctl.inference.reading import reading_of
from calmctl.inference.settings import Decoding, check_greedy
from calmctl.inference.writer import Sample, Throughput, Writer, by_batch
from calmctl.modeling.calling import accepts, cache_argument
from calmctl.modeling.layers import text_config
from calmctl.modeling.probe import without_rounding
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.stored.parts import PartsModel
from calmctl.modeling.tokenizers.token_bytes import ByteVocabulary, TokenBytes
from evals.task import before_stops


@dataclass(frozen=True)
class Voice:
    """One of the two models.

    Attributes:
        name: as the user gave it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str


class Mixture(Writer):
    """Generates and scores texts with two models.

    Args:
        voices: the model that is evaluated, and the one that is mixed in.
        weight: the share of the second in the average.
        throughput: updated whenever completions are finished.

    Raises:
        UserError: decoding is not greedy, a tokenizer's tokens have no bytes, or a model cannot ignore masked tokens.
    """

    def __init__(
        self, voices: tuple[Voice, Voice], weight: float, decoding: Decoding, throughput: Throughput | None = None
    ) -> None:
        check_greedy(decoding)
        super().__init__(decoding, decoding.batch_size, throughput)
        self.voices, self.shares = voices, (1 - weight, weight)
        self._readers: list[ByteReader] = []
        self._vocabularies = []
        for voice in voices:
            check_mixable(voice.model, voice.tokenizer, voice.name)
            model = voice.model
            if reading_of(model, voice.tokenizer).together != "padded" or not without_rounding(
                model, partial(passes_over, model)
            ):
                raise _in_vain(model, voice.name)
            with ready_to_write(voice.model, voice.tokenizer):
                ends = voice.model.generation_config.eos_token_id or []
            size = vocabulary_size(voice.model)
            self._vocabularies.append(ByteVocabulary(voice.tokenizer, ends, size, voice.name))

    def _samples(self, fitted: FittedPrompts, rows: Sequence[Row], batch_size: int) -> Iterator[list[Sample]]:
        for start in range(0, len(rows), batch_size):
            try:
                written = self._batch(fitted, rows[start : start + batch_size])
            except NotFiniteError as error:
                raise NotFiniteError(error.model, error.what, start + error.row) from None
            yield written

    def _batch(self, fitted: FittedPrompts, rows: Sequence[Row]) -> list[Sample]:
        prompts = [fitted.prompts[place] for place, _ in rows]
        written = self._write([each.text for each in prompts], prompts[0].stop, prompts[0].max_new_tokens)
        return [
            Sample(place, index, before_stops(text.decode(errors="replace"), prompts[0].stop), count)
            for (place, index), (text, count) in zip(rows, written, strict=True)
        ]

    def _free(self) -> None:
        self._readers = []

    def bits_of(self, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the index of each pair, and the bits of its text given its prompt.

        They count a single tokenisation of the text, and so are an upper bound (see `byte_reading`).
        """

        def bits_of(places: Sequence[int]) -> list[tuple[int, float]]:
            given = [texts[place].encode() for place in places]
            bits = [0.0] * len(places)

            def next_of(going: list[int], chances: Chances, written: list[bytes]) -> list[int]:
                symbols = [(*given[row], END)[len(written[row])] for row in going]
                for row, symbol, each in zip(going, symbols, chances, strict=True):
                    bits[row] -= math.log2(each[symbol]) if symbol != END else 0.0
                return symbols

            try:
                self._go_on([prompts[place] for place in places], next_of)
            except NotFiniteError as error:
                raise NotFiniteError(error.model, error.what, places[error.row]) from None
            return list(zip(places, bits, strict=True))

        order = sorted(range(len(prompts)), key=lambda place: -len(texts[place]))
        for found in self._in_parts(
            order, by_batch(bits_of), lambda place: f"text of {len(texts[place].encode())} bytes"
        ):
            yield from found

    def _write(self, prompts: Sequence[str], stop: tuple[str, ...], most: int) -> list[tuple[bytes, int]]:
        """Return the greedy completion of each prompt in bytes, and its number of tokens of the first model."""
        stops, counts, whole = [each.encode() for each in stop], [0] * len(prompts), [0] * len(prompts)

        def next_of(going: list[int], chances: Chances, written: list[bytes]) -> list[int]:
            reader, symbols = self._readers[0], []
            for row, count, begun, each in zip(going, reader.num_tokens, reader.num_begun, chances, strict=True):
                counts[row], whole[row] = count, max(len(written[row]) - begun, 0)
                is_over = count >= most or any(end in written[row] for end in stops)
                symbols.append(END if is_over else int(each.argmax()))
            return symbols

        written = self._go_on(prompts, next_of)
        # Bytes after the last allowed token were generated only to see that token end.
        return [
            (text[:end] if count >= most else text, count)
            for text, end, count in zip(written, whole, counts, strict=True)
        ]

    def _go_on(
        self, prompts: Sequence[str], next_of: Callable[[list[int], Chances, list[bytes]], list[int]]
    ) -> list[bytes]:
        """Return the bytes generated after each prompt until `next_of` has ended every row.

        Args:
            next_of: (indices of running rows, probabilities (rows, 257) of their next symbols, bytes generated so far
                in all rows) -> the next symbol of each running row.
        """
        written, going = [b""] * len(prompts), list(range(len(prompts)))
        with ExitStack() as stack:
            for voice in self.voices:
                stack.enter_context(ready_to_write(voice.model, voice.tokenizer))
            readers = self._readers = [
                ByteReader(
                    voice.model,
                    vocabulary,
                    prompt_ids(voice.tokenizer, prompts),
                    voice.model.generation_config.pad_token_id,
                )
                for voice, vocabulary in zip(self.voices, self._vocabularies, strict=True)
            ]
            while going:
                chances = sum(share * reader.chances() for share, reader in zip(self.shares, readers, strict=True))
                symbols = next_of(going, np.asarray(chances), written)
                goes_on = [place for place, symbol in enumerate(symbols) if symbol != END]
                if len(goes_on) < len(going):
                    going, symbols = [going[place] for place in goes_on], [symbols[place] for place in goes_on]
                    for reader in readers if going else ():
                        reader.keep(goes_on)
                for row, symbol in zip(going, symbols, strict=True):
                    written[row] += bytes([symbol])
                for reader in readers if going else ():
                    reader.take(symbols)
        self._free()
        return written


def check_mixable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError for a model that cannot be mixed with another.

    Args:
        model: with or without weights.
        name: as the user gave it.
    """
    if isinstance(model, PartsModel):
        raise UserError(f"mix: {name} is a composition or has adapters; only plain models are mixed")
    is_chunked = getattr(text_config(model.config), "attention_chunk_size", None)
    if not accepts(model, "position_ids") or cache_argument(model) is None or is_chunked:
        raise _in_vain(model, name)
    try:
        TokenBytes.of(tokenizer, name)
    except UserError as error:
        raise UserError(f"mix: {str(error).partition('; compose models')[0]}; mix other models") from None


def _in_vain(model: PreTrainedModel, name: str) -> UserError:
    return UserError(
        f"mix: {name}: {type(model).__name__} cannot pass over tokens that were tried in vain (it takes no positions, "
        "keeps a state, or reads in chunks); mix other models"
    )
