"""The images that an attack without gradients may begin with, taken from the data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from caa_cli.attacks.common.starting_points import MOST_STARTING_POINTS
from caa_cli.data.images import Images, readable, spread

# Limits on the pool that they are chosen from: images, and numbers in all.
_MOST_IMAGES, _MOST_NUMBERS = 1000, 2**25


def starting_points_bytes(input_shape: Sequence[int]) -> int:
    """The most bytes that `StartingPoints` take: the pool, and twice as much while it is put together or measured."""
    return 3 * 4 * math.prod(input_shape) * _pool_size(input_shape)


class StartingPoints:
    """The nearest image of each other class, or of one."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def near(self, image: Tensor, label: int, target: int | None = None) -> Tensor:
        """The nearest image of each other class, or the nearest ones of the target, nearest first, at most nine:
        (M, *input_shape) on the CPU."""
        pool, labels = self._pool
        by_distance = (pool - image.cpu()).flatten(1).norm(dim=1).argsort().tolist()
        if target is not None:
            chosen = [number for number in by_distance if labels[number] == target]
        else:
            nearest: dict[int, int] = {}
            for number in by_distance:
                nearest.setdefault(labels[number], number)
            chosen = [number for of_class, number in nearest.items() if of_class != label]
        return pool[chosen[:MOST_STARTING_POINTS]]

    @cached_property
    def _pool(self) -> tuple[Tensor, list[int]]:
        """Evenly spaced images of the split that can be read, (N, *input_shape), and their labels."""
        shape = self._images.input_shape
        positions = spread(len(self._images), _pool_size(shape))
        pool = dict(readable(self._images, [self._images.indices[position] for position in positions]))
        images = torch.stack(list(pool.values())) if pool else torch.zeros(0, *shape)
        return images, [self._images.label(index) for index in pool]


def _pool_size(input_shape: Sequence[int]) -> int:
    """How many images of this shape the pool holds at most: at least 64."""
    return min(_MOST_IMAGES, max(64, _MOST_NUMBERS // math.prod(input_shape)))
