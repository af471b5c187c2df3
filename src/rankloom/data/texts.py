"""Strings a column at a time: one run of bytes, compared a block of them at a time.

Shapes: V texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rankloom.data.columns import expand_ranges, offsets_of

WORD_BYTES = 8
BLOCK_BYTES = 64
"""Compared at once, and zeros after the last text."""
# Entry n keeps a word's first n bytes.
_KEPT_OF_WORD = np.array([2 ** (8 * n) - 1 for n in range(WORD_BYTES + 1)], np.uint64)
_BLOCK = np.dtype((np.void, BLOCK_BYTES))
# The same for a block.
_KEPT_OF_BLOCK = (
    np.where(np.tri(BLOCK_BYTES + 1, BLOCK_BYTES, -1, bool), 255, 0).astype(np.uint8).view(_BLOCK)
).reshape(-1)
# So many texts at a time stay in the cache while they are compared.
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Texts:
    """V strings in UTF-8."""

    padded: npt.NDArray[np.uint8]
    """The bytes of all, one after the other, and `BLOCK_BYTES` zeros, so that a word or a block may
    start at each."""
    offsets: npt.NDArray[np.int64]
    """(V + 1,), from 0 on. Text v is `padded[offsets[v]:offsets[v + 1]]`."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, at: int) -> str:
        return self.padded[self.offsets[at] : self.offsets[at + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))

    def tolist(self) -> list[str]:
        """Give Python's strings."""
        data, at = self.padded.tobytes(), self.offsets.tolist()
        return [data[first:stop].decode() for first, stop in itertools.pairwise(at)]

    def take(self, kept: npt.NDArray[np.int64]) -> Texts:
        """Copy the texts at some positions."""
        lengths = self.lengths[kept]
        data = self.padded[expand_ranges(self.offsets[kept], lengths)]
        return Texts.of_bytes(data, offsets_of(lengths))

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Encode Python's strings.

        Raises:
            UnicodeEncodeError: One holds half a surrogate pair, which UTF-8 cannot.
        """
        joined = "".join(texts)
        data = joined.encode()
        if len(data) == len(joined):
            # All ASCII: as many bytes as characters.
            lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        else:
            lengths = np.fromiter((len(text.encode()) for text in texts), np.int64, len(texts))
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls.of_bytes(np.frombuffer(data, np.uint8), offsets)

    @classmethod
    def of_bytes(cls, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Texts:
        """Copy the bytes that the offsets speak of; these need not start at 0."""
        first, last = int(offsets[0]), int(offsets[-1])
        padded = np.zeros(last - first + BLOCK_BYTES, np.uint8)
        padded[: last - first] = data[first:last]
        return cls(padded, offsets - first)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(V,) bytes of each."""
        return np.diff(self.offsets)

    def word_at(
        self, starts: npt.NDArray[np.int64], left: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint64]:
        """Give the little-endian word at each start, of which only the first `left` bytes count."""
        count = len(self.padded) - WORD_BYTES + 1
        words = np.ndarray(count, np.dtype("<u8"), buffer=self.padded, strides=(1,))
        word: npt.NDArray[np.uint64] = words[starts]
        word &= _KEPT_OF_WORD[np.minimum(left, WORD_BYTES)]
        return word

    def equal_at(self, positions: npt.NDArray[np.int64], others: Texts) -> npt.NDArray[np.bool_]:
        """Compare the texts at some positions with as many others, one by one.

        Args:
            positions: (V',) of texts in here; -1 equals nothing.
            others: V' texts.
        """
        is_equal = np.empty(len(positions), np.bool_)
        for first in range(0, len(positions), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            part = Texts(others.padded, others.offsets[first : first + _ROWS_AT_ONCE + 1])
            is_equal[rows] = self._equal_at(positions[rows], part)
        return is_equal

    def _equal_at(self, positions: npt.NDArray[np.int64], others: Texts) -> npt.NDArray[np.bool_]:
        starts, lengths = self.offsets[positions], others.lengths
        is_equal: npt.NDArray[np.bool_] = self.offsets[positions + 1] - starts == lengths
        is_equal &= positions >= 0
        rows = np.flatnonzero(is_equal)
        here, there, left = starts[rows], others.offsets[rows], lengths[rows]
        while len(rows):
            differing = self._blocks[here].view(np.uint64)
            differing ^= others._blocks[there].view(np.uint64)
            differing &= _KEPT_OF_BLOCK[np.minimum(left, BLOCK_BYTES)].view(np.uint64)
            words_of_block = BLOCK_BYTES // WORD_BYTES
            is_equal[rows[np.flatnonzero(differing) // words_of_block]] = False
            going = np.flatnonzero(left > BLOCK_BYTES)
            rows, left = rows[going], left[going] - BLOCK_BYTES
            here, there = here[going] + BLOCK_BYTES, there[going] + BLOCK_BYTES
        return is_equal

    @property
    def _blocks(self) -> npt.NDArray[np.void]:
        """View the bytes as overlapping blocks: entry i starts at byte i."""
        count = len(self.padded) - BLOCK_BYTES + 1
        return np.ndarray(count, _BLOCK, buffer=self.padded, strides=(1,))
