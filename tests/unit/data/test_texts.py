from __future__ import annotations

import numpy as np
import pytest

from rankloom.data.texts import Texts

# Around a word of 8 bytes, a block of 64 and their multiples.
LENGTHS = [0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200]


def pairs(texts: list[str], others: list[str]) -> list[bool]:
    """Compare each text with the other at its place."""
    return Texts.of(texts).equal_at(np.arange(len(texts)), Texts.of(others)).tolist()


@pytest.mark.parametrize("length", LENGTHS)
def test_texts_of_any_length_equal_themselves(length):
    text = "".join(chr(33 + n % 90) for n in range(length))
    # The neighbours' bytes do not count.
    assert pairs(["x" * 9, text, "y" * 70], ["z", text, "z"]) == [False, True, False]


@pytest.mark.parametrize("length", LENGTHS[1:])
def test_one_other_byte_anywhere_is_seen(length):
    text = "a" * length
    others = [text[:at] + "b" + text[at + 1 :] for at in range(length)]
    assert not any(pairs([text] * length, others))


@pytest.mark.parametrize("length", LENGTHS)
def test_a_text_is_not_its_beginning_nor_one_with_zeros_after_it(length):
    text = "a" * length
    longer = [text + "a", text + "\0", text + "\0" * 8, text + "\0" * 64]
    assert pairs([text] * 4, longer) == [False] * 4
    assert pairs(longer, [text] * 4) == [False] * 4
    assert pairs(longer, longer) == [True] * 4


def test_zero_bytes_and_other_scripts_are_bytes_like_others():
    texts = ["", "\0", "\0\0", "a\0b", "a\0c", "\xfc", "u", "\u6771\u4eac", "\U0001f600" * 20]
    found = [pairs([one] * len(texts), texts) for one in texts]
    assert found == np.eye(len(texts), dtype=bool).tolist()


def test_no_position_equals_nothing_not_even_an_empty_text():
    for texts in ([], [""], ["a", ""], ["a", "b"]):
        nowhere = np.full(3, -1)
        assert Texts.of(texts).equal_at(nowhere, Texts.of(["", "a", "b"])).tolist() == [False] * 3


def test_more_texts_than_are_compared_at_once():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("ab"), size=rng.integers(0, 12))) for _ in range(300)]
    here, there = rng.integers(-1, 300, 20_000), rng.integers(0, 300, 20_000)
    others = Texts.of([words[at] for at in there])
    expected = [a >= 0 and words[a] == words[b] for a, b in zip(here, there, strict=True)]
    assert Texts.of(words).equal_at(here, others).tolist() == expected
    assert 0 < sum(expected) < 20_000


def test_bytes_need_not_start_at_zero():
    texts = Texts.of_bytes(np.frombuffer(b"..abc\xc3\xbc..", np.uint8), np.array([2, 3, 3, 5, 7]))
    assert texts.lengths.tolist() == [1, 0, 2, 2]
    others = Texts.of(["a", "", "bc", "\xfc"])
    assert texts.equal_at(np.arange(4), others).tolist() == [True] * 4


@pytest.mark.parametrize("texts", [[], ["a", "bc"], ["\xfc", "", "a"], ["a", "\u6771"]])
def test_offsets_count_bytes(texts):
    found = Texts.of(texts)
    assert len(found) == len(texts)
    assert found.lengths.tolist() == [len(text.encode()) for text in texts]
    size = int(found.offsets[-1])
    assert found.padded[:size].tobytes() == "".join(texts).encode()
    assert not found.padded[size:].any()
