"""Leaving out negatives while a training log is read, so that an epoch is shorter.

Whether a negative is kept depends on the seed, the epoch and its own place in the log alone (file,
line, place within the line), so that neither shuffling, nor buffers, nor ranks, nor resuming change
it; another epoch keeps others. Predictions are corrected by the task's `negatives_kept`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankloom.data.columns import Block, Bools, Ints, Plain, offsets_of
from rankloom.data.files import LogFiles, read_lines
from rankloom.data.hashing import hash_keys
from rankloom.data.plan import Decoder
from rankloom.data.transforms import Transforms
from rankloom.schema import Schema

_LINE_BITS = 20
"""A line has up to 2 ** 20 rows; beyond, rows of two lines would share a draw, which harms none."""


@dataclass(frozen=True)
class NegativeSampling:
    """Keeps a share of a task's negatives, and all other rows."""

    task: str
    """Binary; a row is its negative where its label is 0 and its mask, if any, is true."""
    ratio: float
    """Share of the negatives that are kept, in (0, 1)."""
    seed: int
    """Another seed keeps others."""

    def is_negative(self, block: Block) -> Bools:
        """Tell which (rows,) of a block are negatives."""
        label, mask = block.rows["labels", self.task], block.rows.get(("masks", self.task))
        assert isinstance(label, Plain)
        negative: Bools = label.values == 0
        return negative & mask.values if isinstance(mask, Plain) else negative

    def apply(self, block: Block, *, epoch: int, file: int, first_line: int) -> Block:
        """Leave out the negatives that an epoch does not keep.

        Args:
            block: Lines that follow each other in one file, decoded with labels.
            epoch: From 0 on.
            file: The file's number in the log.
            first_line: Number of the block's first line in it.
        """
        counts = block.num_rows_of_each()
        lines = np.repeat(np.arange(first_line, first_line + len(counts)), counts)
        places = np.arange(len(lines)) - np.repeat(offsets_of(counts)[:-1], counts)
        drawn = self._draw((lines << _LINE_BITS) + places, epoch=epoch, file=file)
        return block.keep_rows(~self.is_negative(block) | drawn)

    def _draw(self, places: Ints, *, epoch: int, file: int) -> Bools:
        state = np.random.SeedSequence([self.seed, epoch, file]).generate_state(1, np.uint64)
        hashes = hash_keys(places, seed=int(state[0]))
        # 53 bits are what a double holds.
        kept: Bools = (hashes >> np.uint64(11)) * 2.0**-53 < self.ratio
        return kept


def count_kept_rows(log: LogFiles, decoder: Decoder, sampling: NegativeSampling) -> int:
    """Count the rows that an epoch keeps, on the mean over epochs; reads the task's columns once.

    Args:
        log: The training log.
        decoder: Says how it is stored.
        sampling: What is left out.

    Raises:
        DataError: A file cannot be read, or a label is not allowed.
    """
    task = decoder.schema.tasks[sampling.task]
    labels = Decoder(
        Schema({}, tasks={sampling.task: task}), Transforms(), layout=decoder.layout, training=True
    )
    num_rows = num_negatives = 0
    for batch, origin in read_lines(log.segments(), labels.columns):
        negative = sampling.is_negative(labels.decode(batch, origin))
        num_rows += len(negative)
        num_negatives += int(np.count_nonzero(negative))
    return num_rows - num_negatives + round(sampling.ratio * num_negatives)
