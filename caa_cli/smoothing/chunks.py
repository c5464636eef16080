"""Cutting examples × samples into pieces that fit a chunk."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A rectangle of work: the same range of noise samples for a range of examples."""

    examples: slice
    samples: slice

    @property
    def num_examples(self) -> int:
        return int(self.examples.stop - self.examples.start)

    @property
    def num_samples(self) -> int:
        return int(self.samples.stop - self.samples.start)

    @property
    def size(self) -> int:
        return self.num_examples * self.num_samples

    def at(self, start: int, end: int) -> Piece:
        """A piece of the same size and examples whose samples begin at `start`; it ends at `end` at the latest."""
        return Piece(self.examples, slice(start, min(start + self.num_samples, end)))

    def holds_first(self, samples: int) -> bool:
        """Whether this piece begins with the first samples, and holds so many of them."""
        return self.samples.start == 0 and self.num_samples >= samples

    def cut(self, chunk: int, block: int) -> list[Piece]:
        """Smaller pieces that make up this one, unless it fits: cut between examples or, of one example, between
        samples. So one example's samples may still be too many for the chunk, and have to be cut again."""
        if self.size <= chunk:
            return [self]
        if self.num_examples > 1:
            step = max(1, chunk // self.num_samples)
            return [
                Piece(slice(first, min(first + step, self.examples.stop)), self.samples)
                for first in range(self.examples.start, self.examples.stop, step)
            ]
        # Whole blocks, where a chunk holds one, so that no noise is drawn in vain.
        step = chunk - chunk % block if chunk >= block else chunk
        return [
            Piece(self.examples, slice(first, min(first + step, self.samples.stop)))
            for first in range(self.samples.start, self.samples.stop, step)
        ]


def plan_pieces(examples: int, samples: int, chunk: int, block: int, start: int = 0) -> deque[Piece]:
    """The pieces of a pass over samples start, start + 1, … of each example: several whole examples each, or a range
    of one example's samples."""
    together = max(1, chunk // samples)
    pieces: deque[Piece] = deque()
    for first in range(0, examples, together):
        last = min(first + together, examples)
        pieces.extend(Piece(slice(first, last), slice(start, start + samples)).cut(chunk, block))
    return pieces
