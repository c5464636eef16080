"""How far a ray stays inside a union of certified balls."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Balls:
    """Certified balls of a batch of examples, each on one of two sides of the boundary.

    centres: (examples, capacity, dimensions).  radii: (examples, capacity), 0 where a slot is unused.
    sides: (examples, capacity) bool, which side the ball is on.  Capacity grows with the longest history.
    """

    _FIRST_CAPACITY = 8

    def __init__(self, examples: int, dimensions: int, device: torch.device) -> None:
        shape = (examples, self._FIRST_CAPACITY)
        self.centres = torch.zeros((*shape, dimensions), device=device)
        self.radii = torch.zeros(shape, device=device)
        self.sides = torch.zeros(shape, dtype=torch.bool, device=device)
        self._used = torch.zeros(examples, dtype=torch.int64, device=device)
        # An upper bound of the balls of any example: the exact number needs a synchronisation with the device.
        self._at_most = 0

    def add(self, centres: Tensor, radii: Tensor, sides: Tensor) -> None:
        """Adds one ball to each example: centres (examples, dimensions), radii and sides (examples,).

        A ball of radius 0 certifies nothing: its slot stays unused, and the next ball is written over it.
        """
        if self._at_most == self.capacity:
            self._at_most = int(self._used.max())
        self._at_most += 1
        if self._at_most > self.capacity:
            self._grow(2 * self.capacity)
        slot = self._used[:, None]
        self.centres.scatter_(1, slot[:, :, None].expand(-1, -1, centres.shape[1]), centres[:, None])
        self.radii.scatter_(1, slot, radii[:, None])
        self.sides.scatter_(1, slot, sides[:, None])
        self._used += radii > 0

    def exit(self, origin: Tensor, direction: Tensor, sides: Tensor) -> Tensor:
        """`ray_exit` of each example from the balls of one of its sides: origin and unit direction (examples,
        dimensions), sides (examples,) → (examples,)."""
        radii = self.radii * (self.sides == sides[:, None])
        return ray_exit(origin, direction, self.centres, radii)

    def clear(self, chosen: Tensor) -> None:
        """Removes the balls of the examples of this mask."""
        self.radii.masked_fill_(chosen[:, None], 0.0)
        self._used.masked_fill_(chosen, 0)

    @property
    def capacity(self) -> int:
        return self.radii.shape[1]

    def take(self, rows: Tensor) -> None:
        """Keeps only these examples."""
        self.centres, self.radii, self.sides = self.centres[rows], self.radii[rows], self.sides[rows]
        self._used = self._used[rows]

    def extend(self, other: Balls) -> None:
        """Appends the examples of another batch."""
        capacity = max(self.capacity, other.capacity)
        self._grow(capacity)
        other._grow(capacity)
        self._at_most = max(self._at_most, other._at_most)
        self.centres = torch.cat([self.centres, other.centres])
        self.radii = torch.cat([self.radii, other.radii])
        self.sides = torch.cat([self.sides, other.sides])
        self._used = torch.cat([self._used, other._used])

    def _grow(self, capacity: int) -> None:
        more = capacity - self.capacity
        self.centres = F.pad(self.centres, (0, 0, 0, more))
        self.radii = F.pad(self.radii, (0, more))
        self.sides = F.pad(self.sides, (0, more))


def ray_exit(origin: Tensor, direction: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """The largest t such that origin + s·direction lies in the union of the balls for all s in [0, t].

    origin, direction: (examples, dimensions), direction of unit length. centres: (examples, balls, dimensions).
    radii: (examples, balls), 0 where there is no ball. Returns (examples,) ≥ 0; 0 where the origin itself is in no
    ball.

    This is the constraint of the paper's Eqs. epsilon_complex and correction, solved exactly: each ball intersects
    the ray in an interval, and the reach is extended over the intervals, in the order in which they begin, until one
    begins beyond it.
    """
    to_centre = centres - origin[:, None]
    along = torch.einsum("ebd,ed->eb", to_centre, direction)
    distance_squared = to_centre.square().sum(dim=2)
    inside = radii.square() - (distance_squared - along.square())  # half the chord, squared
    misses = (radii <= 0) | (inside < 0)
    half_chord = inside.clamp(min=0.0).sqrt()
    # A ball that the ray misses begins last, beyond any reach.
    begin, order = (along - half_chord).masked_fill_(misses, torch.inf).sort(dim=1)
    end = (along + half_chord).clamp(min=0.0)
    reach = end.gather(1, order).cummax(dim=1).values
    # The reach before each interval; the ray is covered from 0 up to the first one that begins beyond it.
    before = F.pad(reach[:, :-1], (1, 0))
    covered = (begin <= before).cumprod(dim=1)
    return (reach * covered).amax(dim=1)
