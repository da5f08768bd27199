"""Mixture: two models write a text together, byte by byte, with no training at all.

Each says how likely it thinks every next byte, whatever its tokens are (`byte_reading`), and the average of both
decides. This is what ensembles of language models do token by token, for models whose tokenizers differ.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from calmctl.errors import UserError
from calmctl.inference.batching import Row, batches, groups_of
from calmctl.inference.byte_reading import END, ByteReader, ByteVocabulary, Chances
from calmctl.inference.decoding import Decoding
from calmctl.inference.generation import Sample, check_samples
from calmctl.inference.habits import without_habits
from calmctl.inference.memory import head_read_once
from calmctl.inference.prompt import FittedPrompts, vocabulary_size
from calmctl.inference.stopping import cut
from calmctl.inference.throughput import Throughput
from calmctl.modeling.calling import accepts, cache_argument
from calmctl.modeling.prompt_ids import prompt_ids
from calmctl.modeling.storing import StoredInParts
from calmctl.modeling.token_bytes import TokenBytes


@dataclass(frozen=True)
class Voice:
    """One of the two models.

    Attributes:
        name: what a user calls it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str


class Mixture:
    """Writes texts, and says how likely they are.

    Args:
        voices: the model that is evaluated, and the one that is mixed in.
        weight: the share of the second in the average.
        throughput: is kept up to date.

    Raises:
        UserError: decoding is not greedy, a tokenizer's tokens cannot be told as bytes, or a model takes no positions.
    """

    def __init__(
        self, voices: tuple[Voice, Voice], weight: float, decoding: Decoding, throughput: Throughput | None = None
    ) -> None:
        check_greedy(decoding)
        self.voices, self.shares, self.decoding = voices, (1 - weight, weight), decoding
        self.throughput = throughput or Throughput()
        self._vocabularies = []
        for voice in voices:
            check_mixable(voice.model, voice.tokenizer, voice.name)
            with without_habits(voice.model, voice.tokenizer):
                ends = voice.model.generation_config.eos_token_id or []
                size = vocabulary_size(voice.model)
            self._vocabularies.append(ByteVocabulary(voice.tokenizer, ends, size, voice.name))

    def generate(
        self, fitted: FittedPrompts, done: Collection[Row] = (), places: Sequence[int] | None = None
    ) -> Iterator[list[Sample]]:
        """Yield batches of completions; see `Engine.generate`."""
        check_samples(fitted.prompts, self.decoding)
        places = range(len(fitted.prompts)) if places is None else places
        rows = [(place, index) for place in places for index in range(fitted.prompts[place].num_samples)]
        self.throughput.total, self.throughput.done = len(rows), sum(row in done for row in rows)
        for batch in batches(rows, fitted, groups_of(fitted), self.decoding.batch_size):
            if remaining := [place for place, index in batch if (place, index) not in done]:
                prompts = [fitted.prompts[place] for place in remaining]
                written = self._write([prompt.whole for prompt in prompts], prompts[0].stop, prompts[0].max_new_tokens)
                samples = [
                    Sample(place, 0, cut(text.decode(errors="replace"), prompts[0].stop), tokens)
                    for place, (text, tokens) in zip(remaining, written, strict=True)
                ]
                self.throughput.batch_size = max(self.throughput.batch_size, len(samples))
                yield samples
                self.throughput.add(len(samples), sum(sample.num_tokens for sample in samples))

    def bits_of(self, prompts: Sequence[str], texts: Sequence[str]) -> Iterator[tuple[int, float]]:
        """Yield the index of each pair and the bits of its text after its prompt; see `likelihood.bits_of`."""
        order = sorted(range(len(prompts)), key=lambda place: -len(texts[place]))
        for start in range(0, len(order), self.decoding.batch_size):
            places = order[start : start + self.decoding.batch_size]
            given, bits = [texts[place].encode() for place in places], [0.0] * len(places)

            def next_of(
                going: list[int],
                chances: Chances,
                written: list[bytes],
                given: list[bytes] = given,
                bits: list[float] = bits,
            ) -> list[int]:
                symbols = [
                    given[row][len(written[row])] if len(written[row]) < len(given[row]) else END for row in going
                ]
                for row, symbol, each in zip(going, symbols, chances, strict=True):
                    bits[row] -= math.log2(each[symbol]) if symbol != END else 0.0
                return symbols

            self._go_on([prompts[place] for place in places], next_of)
            yield from zip(places, bits, strict=True)

    def _write(self, prompts: Sequence[str], stop: tuple[str, ...], most: int) -> list[tuple[bytes, int]]:
        """Return the likeliest bytes after each prompt, and how many tokens of the first model they are."""
        stops, counts = [each.encode() for each in stop], [0] * len(prompts)

        def next_of(going: list[int], chances: Chances, written: list[bytes]) -> list[int]:
            for row, count in zip(going, self._readers[0].num_tokens, strict=True):
                counts[row] = count
            is_over = [counts[row] >= most or any(each in written[row] for each in stops) for row in going]
            return [END if over else int(each.argmax()) for over, each in zip(is_over, chances, strict=True)]

        return list(zip(self._go_on(prompts, next_of), counts, strict=True))

    def _go_on(
        self, prompts: Sequence[str], next_of: Callable[[list[int], Chances, list[bytes]], list[int]]
    ) -> list[bytes]:
        """Return what is written after each prompt, until `next_of` says that every row ends.

        Args:
            next_of: takes which rows go on, the chances (rows, 257) of their next symbols, and what all rows have
                written; returns the symbol of each.
        """
        written, going = [b""] * len(prompts), list(range(len(prompts)))
        readers = self._readers = self._read(prompts)
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
        return written

    def _read(self, prompts: Sequence[str]) -> list[ByteReader]:
        """Let both models read the prompts."""
        readers = []
        for voice, vocabulary in zip(self.voices, self._vocabularies, strict=True):
            ids = prompt_ids(voice.tokenizer, prompts)
            with without_habits(voice.model, voice.tokenizer), head_read_once(voice.model):
                pad_id = voice.model.generation_config.pad_token_id
                readers.append(ByteReader(voice.model, vocabulary, ids, pad_id))
        return readers


def check_greedy(decoding: Decoding) -> None:
    """Raise UserError where two models could not decode so together."""
    if decoding.name != "greedy":
        raise UserError(f"mix: two models write together greedily, not by {decoding.name} decoding; leave it out")


def check_mixable(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError for a model that cannot write together with another.

    Args:
        model: it need not have weights.
        name: what a user calls it.
    """
    if isinstance(model, StoredInParts):
        raise UserError(f"mix: {name} is a composition or has adapters; only plain models are mixed")
    if not accepts(model, "position_ids") or cache_argument(model) is None:
        raise UserError(
            f"mix: {name}: {type(model).__name__} takes no positions, by which tokens that were tried are skipped"
        )
    try:
        TokenBytes.of(tokenizer, name)
    except UserError as error:
        raise UserError(f"mix: {error}") from None
