"""Frames between processes: what goes in comes out, whole or in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankloom.data.columns import Lists, Plain
from rankloom.errors import ServingError
from rankloom.serving.frames import (
    HEAD,
    Frame,
    FrameBuffer,
    Kind,
    encode_frame,
    pack_parts,
    unpack_parts,
)
from rankloom.serving.parts import Parts, user_key

FRAMES = [
    Frame(Kind.RANK, {"id": 192, "deadline": 1.5}, (np.arange(5), np.ones((2, 3), np.float32))),
    Frame(Kind.CANCEL, 192),
    # Odd lengths, so that padding matters; no element at all.
    Frame(Kind.RESULT, "x" * 9, (np.array([True] * 3), np.empty((0, 4)), np.arange(2.0))),
]


def assert_same(found: Frame, expected: Frame) -> None:
    assert (found.kind, found.message) == (expected.kind, expected.message)
    assert len(found.arrays) == len(expected.arrays)
    for ours, theirs in zip(found.arrays, expected.arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert np.array_equal(ours, theirs)


@given(sizes=st.lists(st.integers(1, 60), min_size=1))
@settings(max_examples=50, deadline=None)
def test_frames_survive_being_cut_anywhere(sizes: list[int]) -> None:
    stream = b"".join(map(encode_frame, FRAMES))
    buffer, found, at, turn = FrameBuffer(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        found += buffer.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert len(found) == len(FRAMES)
    for ours, theirs in zip(found, FRAMES, strict=True):
        assert_same(ours, theirs)


@given(shape=st.integers(100, 300))
@settings(max_examples=50, deadline=None)
def test_no_size_is_taken_for_padding(shape: int) -> None:
    frame = Frame(Kind.RESULT, None, (np.arange(shape),))
    (found,) = FrameBuffer().feed(encode_frame(frame))
    assert_same(found, frame)


@pytest.mark.parametrize("head", [HEAD.pack(99, 1, 1), HEAD.pack(Kind.RANK, 1, 1 << 40)])
def test_bytes_that_are_no_frame_are_refused(head: bytes) -> None:
    with pytest.raises(ServingError, match="no frame begins here"):
        list(FrameBuffer().feed(head))


def test_a_request_comes_back() -> None:
    parts = Parts(
        user={
            ("ids", "user"): Plain(np.array([7])),
            ("sequences", "history"): Lists(
                np.array([0, 2]), {"columns/item": np.array([4, 5]), "times/gap": np.ones(2)}
            ),
        },
        request={("ids", "hour"): Plain(np.array([21]))},
        rows={
            ("ids", "item"): Plain(np.array([1, 2, 3])),
            ("ids", "tags"): Lists(np.array([0, 0, 1, 3]), {"ids": np.array([9, 8, 7])}),
        },
        num_rows=3,
    )
    (frame,) = FrameBuffer().feed(encode_frame(Frame(Kind.RANK, *pack_parts(parts))))
    found = unpack_parts(frame.message, frame.arrays, 3)
    assert found.user.keys() == parts.user.keys()
    assert found.request.keys() == parts.request.keys()
    assert found.rows.keys() == parts.rows.keys()
    assert user_key(found) == user_key(parts)
    history, tags = found.user["sequences", "history"], found.rows["ids", "tags"]
    assert isinstance(history, Lists)
    assert isinstance(tags, Lists)
    assert history.values["columns/item"].tolist() == [4, 5]
    assert history.values["times/gap"].tolist() == [1.0, 1.0]
    assert tags.offsets.tolist() == [0, 0, 1, 3]
    assert tags.values["ids"].tolist() == [9, 8, 7]
