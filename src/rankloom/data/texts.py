"""Strings a column at a time: one block of bytes, compared word by word.

Shapes: V texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WORD_BYTES = 8
# Entry n keeps a word's first n bytes.
_KEPT_BYTES = np.array([2 ** (8 * n) - 1 for n in range(WORD_BYTES + 1)], np.uint64)


@dataclass(frozen=True)
class Texts:
    """V strings in UTF-8."""

    padded: npt.NDArray[np.uint8]
    """The bytes of all, one after the other, and 8 zeros, so that a word may start at each."""
    offsets: npt.NDArray[np.int64]
    """(V + 1,), from 0 on. Text v is `padded[offsets[v]:offsets[v + 1]]`."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Encode Python's strings."""
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls.of_bytes(
            np.frombuffer(b"".join(encoded), np.uint8), np.append(0, np.cumsum(lengths))
        )

    @classmethod
    def of_bytes(cls, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> Texts:
        """Copy the bytes that the offsets speak of; these need not start at 0."""
        first, last = int(offsets[0]), int(offsets[-1])
        padded = np.zeros(last - first + WORD_BYTES, np.uint8)
        padded[: last - first] = data[first:last]
        return cls(padded, offsets - first)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(V,) bytes of each."""
        return np.diff(self.offsets)

    @property
    def words(self) -> npt.NDArray[np.uint64]:
        """View the bytes as overlapping words: entry i holds bytes i to i + 7, little-endian."""
        count = len(self.padded) - WORD_BYTES + 1
        return np.ndarray(count, np.dtype("<u8"), buffer=self.padded, strides=(1,))

    def word_at(
        self, starts: npt.NDArray[np.int64], left: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint64]:
        """Give the word at each start, of which only the first `left` bytes are kept."""
        word: npt.NDArray[np.uint64] = self.words[starts]
        word &= _KEPT_BYTES[np.minimum(left, WORD_BYTES)]
        return word

    def equal_at(self, positions: npt.NDArray[np.int64], others: Texts) -> npt.NDArray[np.bool_]:
        """Compare the texts at some positions with as many others, one by one.

        Args:
            positions: (V',) of texts in here; -1 equals nothing.
            others: V' texts.
        """
        starts, lengths = self.offsets[positions], others.lengths
        is_equal = (self.offsets[positions + 1] - starts == lengths) & (positions >= 0)
        rows = np.flatnonzero(is_equal & (lengths > 0))
        here, there, left = starts[rows], others.offsets[rows], lengths[rows]
        while len(rows):
            same = self.word_at(here, left) == others.word_at(there, left)
            is_equal[rows[~same]] = False
            # A pair leaves when it differs or is used up.
            going = np.flatnonzero(same & (left > WORD_BYTES))
            rows, left = rows[going], left[going] - WORD_BYTES
            here, there = here[going] + WORD_BYTES, there[going] + WORD_BYTES
        return is_equal
