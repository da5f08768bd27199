"""Segmentation: what an aug has read is its own tokenization of the text so far, whatever the anchor's tokens are."""

import codecs
import copy
import random
import unicodedata

import pytest
import torch

from calmctl.modeling.options import SEGMENTATIONS
from calmctl.modeling.tokenizers.aug_tokens import AugHistory, AugTokens, stacked
from calmctl.modeling.tokenizers.own import own_tokenizer
from calmctl.modeling.tokenizers.segmentation import NEVER, Segmenter, Segments
from calmctl.modeling.tokenizers.token_bytes import TokenBytes
from tests.own_tokenizers import PAIRS, any_ids, segmenter
from tests.tokenizer_families import random_texts

EVERY_PAIR = pytest.mark.parametrize("pair", PAIRS)
EVERY_KIND = pytest.mark.parametrize("kind", SEGMENTATIONS)


def alive(found: Segments, index: int) -> list[tuple[int, int]]:
    """Return ids and places of what is read when the anchor stands at a token."""
    columns = zip(found.ids, found.born, found.died, found.places, strict=True)
    return [(token, place) for token, born, died, place in columns if born <= index < died]


def text_so_far(of: Segmenter, ids: list[int]) -> str:
    """Return the text of anchor tokens, without the beginning of an unfinished character."""
    written = of.anchor.text_bytes(ids)
    return codecs.getincrementaldecoder("utf-8")("ignore").decode(written)


@EVERY_KIND
@EVERY_PAIR
def test_what_is_read_is_the_text_so_far(pair, kind):
    of, tokenizer = segmenter(pair, kind), PAIRS[pair][0]()
    aug = TokenBytes.of(PAIRS[pair][1](), "aug")
    for text in random_texts(1, 60):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        found, _ = of.read(ids)
        assert found.born == sorted(found.born)
        assert all(born <= index for born, index in zip(found.born, found.died, strict=True))
        for index in range(len(ids)):
            read = alive(found, index)
            assert [place for _, place in read] == list(range(len(read)))
            tokens = [token for token, _ in read if token not in of.opening]
            written = aug.text_bytes(tokens).decode()
            expected = text_so_far(of, ids[: index + 1])
            assert unicodedata.normalize("NFC", written) == unicodedata.normalize("NFC", expected)


@EVERY_PAIR
def test_it_is_the_augs_own_cut_of_the_text_so_far(pair):
    of, tokenizer = segmenter(pair), PAIRS[pair][0]()
    number = same = 0
    for text in random_texts(2, 60):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [token for token in ids if of.anchor[token] is not None]  # markers are borders
        found, _ = of.read(ids)
        for index in range(len(ids)):
            whole = (*of.opening, *of.cutter.cut(text_so_far(of, ids[: index + 1]), True))
            number, same = number + 1, same + (tuple(token for token, _ in alive(found, index)) == whole)
    assert same / number > 0.999


@pytest.mark.parametrize("number", [40, pytest.param(1000, marks=pytest.mark.slow)])
@EVERY_KIND
@EVERY_PAIR
def test_written_token_by_token_or_read_at_once(pair, kind, number):
    """Training reads whole rows, generation what comes: both see the same at every token."""
    of, tokenizer, rng = segmenter(pair, kind), PAIRS[pair][0](), random.Random(3)
    rows = [tokenizer(text)["input_ids"] for text in random_texts(3, number)]
    rows += any_ids(pair, 4, number // 4, 20).tolist()
    for ids in rows:
        whole, _ = of.read(ids)
        history, start = AugHistory(), 0
        found = Segments()
        while start < len(ids):
            end = start + rng.choice([1, 1, 1, 2, 5])
            read = history.read(of, torch.tensor([ids[start:end]]), None)
            found.ids += (
                read.ids[0].tolist()[: int((read.born[0, -read.num_new :] != NEVER).sum())] if read.num_new else []
            )
            start = end
        real = history.born[0] != NEVER
        found.born, found.died, found.places = (
            each[0][real].tolist() for each in (history.born, history.died, history.places)
        )
        assert found == whole


@EVERY_PAIR
def test_going_back_and_on_is_as_if_nothing_had_been_between(pair):
    of = segmenter(pair)
    ids, other = any_ids(pair, 5, 3, 20), any_ids(pair, 6, 3, 20)
    for length in range(1, 20):
        history, expected = AugHistory(), AugHistory()
        history.read(of, torch.cat([ids[:, :length], other[:, length:]], dim=1), None)
        history.crop(length)
        history.read(of, ids[:, length:], None)
        expected.read(of, ids[:, :length], None)
        expected.read(of, ids[:, length:], None)
        for name in ("born", "died", "places"):
            assert torch.equal(getattr(history, name), getattr(expected, name)), name


def test_rows_change_places_with_all_that_is_known_of_them():
    of = segmenter("gpt2-llama3")
    ids = any_ids("gpt2-llama3", 7, 3, 12)
    order = [2, 0, 0, 1]
    history, expected = AugHistory(), AugHistory()
    history.read(of, ids[:, :6], None)
    history.select(order)
    read = history.read(of, ids[order, 6:], None)
    expected.read(of, ids[order, :6], None)
    again = expected.read(of, ids[order, 6:], None)
    for one, other in zip(alive_rows(read, 11), alive_rows(again, 11), strict=True):
        assert one == other


def alive_rows(read: AugTokens, index: int) -> list[list[int]]:
    """Return the places that each row sees at an anchor token."""
    seen = (read.born <= index) & (index < read.died)
    return [row[mask].tolist() for row, mask in zip(read.places, seen, strict=True)]


def test_padding_is_not_read_and_documents_do_not_see_each_other():
    of = segmenter("gpt2-llama3")
    ids = any_ids("gpt2-llama3", 8, 1, 10)[0].tolist()
    alone, _ = of.read(ids)
    padded, _ = of.read([3, 3, *ids, 3], is_read=[False, False, *[True] * 10, False])
    assert [born - 2 for born in padded.born] == alone.born and padded.ids == alone.ids
    packed, _ = of.read(ids + ids, restarts=[index in (0, 10) for index in range(20)])
    assert [token for token, _ in alive(packed, 19)] == [token for token, _ in alive(alone, 9)]
    assert alive(packed, 9) == alive(alone, 9)


def test_a_long_stretch_without_a_space_is_settled_all_the_same():
    of = segmenter("bytes-gpt2")
    ids = PAIRS["bytes-gpt2"][0]()("长" * 300)["input_ids"]
    found, _ = of.read(ids)
    last = alive(found, len(ids) - 1)
    assert len(found.ids) < 20 * len(last)
    assert TokenBytes.of(PAIRS["bytes-gpt2"][1](), "aug").text_bytes(token for token, _ in last).decode() == "长" * 300


def test_rows_of_several_lengths_are_stacked_with_empty_columns():
    rows = [Segments([5, 6], [0, 1], [NEVER, 1], [0, 1]), Segments()]
    found = AugTokens.stacked(stacked(rows), length=2)
    assert found.num_new == 2
    assert found.allowed()[0].tolist() == [[True, False], [True, True]]
    mask = found.bridge_mask(None)
    assert mask is not None and mask[:, 0].tolist() == [[[True, False], [True, False]], [[False, False]] * 2]


def test_markers_are_borders_and_read_as_what_they_are_mapped_to():
    anchor, aug = (make() for make in PAIRS["gpt2-llama3"])
    ends = {anchor.eos_token_id: aug.eos_token_id}
    own = own_tokenizer(anchor, aug, {anchor.eos_token: aug.eos_token})
    assert own is not None and own.markers == {ours: (theirs,) for ours, theirs in ends.items()}
    words = [anchor(word, add_special_tokens=False)["input_ids"] for word in ("the wor", "ld again")]
    ids = [*words[0], anchor.eos_token_id, *words[1]]
    for of, marked in ((segmenter("gpt2-llama3"), []), (own.segmenter("own"), [aug.eos_token_id])):
        found, _ = of.read(ids)
        read = [token for token, _ in alive(found, len(ids) - 1)]
        assert read == [*of.opening, *of.cutter.cut("the wor", True), *marked, *of.cutter.cut("ld again", False)]


def test_an_added_token_that_is_text_is_read_as_what_it_is_mapped_to():
    anchor, aug = (make() for make in PAIRS["gpt2-llama3"])
    anchor = copy.deepcopy(anchor)
    anchor.add_tokens(["<tool>"])
    (tool,) = anchor("<tool>", add_special_tokens=False)["input_ids"]
    for markers, read in (({}, False), ({"<tool>": aug.eos_token}, True)):
        own = own_tokenizer(anchor, aug, markers)
        assert own is not None
        assert (own.segmenter("own").read([tool])[0].ids[-1] == aug.eos_token_id) is read


def test_a_word_that_pads_is_still_a_word():
    anchor, aug = (make() for make in PAIRS["gpt2-llama3"])
    anchor = copy.deepcopy(anchor)
    anchor.pad_token = "!"
    own = own_tokenizer(anchor, aug)
    assert own is not None
    found, _ = own.segmenter("own").read(anchor("Hi!", add_special_tokens=False)["input_ids"])
    assert aug.decode([token for token in found.ids if token not in own.opening]).endswith("!")


def test_the_name_of_a_marker_is_text():
    """What an anchor writes letter by letter is no marker of the aug."""
    aug = PAIRS["bytes-gpt2"][1]()
    ids = [PAIRS["bytes-gpt2"][0]()(letter, add_special_tokens=False)["input_ids"][0] for letter in aug.eos_token]
    found, _ = segmenter("bytes-gpt2").read(ids)
    assert aug.eos_token_id not in found.ids
    assert aug.decode([token for token, _ in alive(found, len(ids) - 1)], skip_special_tokens=True) == aug.eos_token
