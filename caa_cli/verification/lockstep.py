"""Draws of several images in one pass: what each needs next depends on its own votes alone."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key
from caa_cli.verification.line_search import Votes

T = TypeVar("T")


@dataclass(frozen=True)
class Draw:
    """The samples start, start + 1, … of this key's noise at one image (*input_shape)."""

    image: Tensor
    key: Key
    samples: int
    start: int = 0


# Yields what it wants drawn, is sent the votes (classes,), and returns its result.
Drawing = Generator[Draw, Votes, T]


def draw_together(drawings: Sequence[Drawing[T]], classifier: SmoothedClassifier) -> Iterator[tuple[int, T, float]]:
    """(number, result, seconds) of each drawing, as soon as it has finished; of the passes each has its share.

    Several go on together where a chunk holds the samples of several, and one after another where it doesn't. Equal
    draws of those are one pass. The noise is keyed, so that together or not each has the same votes.
    """
    wanted: dict[int, Draw] = {}
    seconds = [0.0] * len(drawings)

    def advance(number: int, votes: Votes | None = None) -> Iterator[tuple[int, T, float]]:
        drawing, began = drawings[number], time.perf_counter()
        try:
            wanted[number] = next(drawing) if votes is None else drawing.send(votes)
            seconds[number] += time.perf_counter() - began
        except StopIteration as end:
            wanted.pop(number, None)
            yield number, end.value, seconds[number] + time.perf_counter() - began

    for number in range(len(drawings)):
        yield from advance(number)
    while wanted:
        began = time.perf_counter()
        width = max(1, classifier.votes_chunk // next(iter(wanted.values())).samples)
        together = _equal_draws({number: wanted[number] for number in list(wanted)[:width]})
        draws = [wanted[number] for number in together]
        x = torch.stack([draw.image for draw in draws])
        votes = (
            classifier.keyed_votes(x, [draw.key for draw in draws], draws[0].samples, draws[0].start).cpu().numpy()
        )
        for number in together:
            seconds[number] += (time.perf_counter() - began) / len(together)
        for number, row in zip(together, votes, strict=True):
            yield from advance(number, row)


def _equal_draws(wanted: dict[int, Draw]) -> list[int]:
    """The numbers of draws that are one pass: those that lag behind, so that the others can go on with them."""
    start, samples = min((draw.start, draw.samples) for draw in wanted.values())
    return [number for number, draw in wanted.items() if (draw.start, draw.samples) == (start, samples)]
