"""How far a ray stays inside a union of certified balls."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class Balls:
    """Certified balls of a batch of examples: centres (examples, capacity, dimensions), radii (examples, capacity).

    An unused slot has a negative radius and intersects no ray. Capacity grows with the longest history.
    """

    def __init__(self, examples: int, dimensions: int, device: torch.device) -> None:
        self.centres = torch.zeros((examples, 0, dimensions), device=device)
        self.radii = torch.zeros((examples, 0), device=device)
        # An upper bound of the balls of any example: the exact number needs a synchronisation with the device.
        self._at_most = 0

    def add(self, centres: Tensor, radii: Tensor) -> None:
        """Adds one ball to each example: centres (examples, dimensions), radii (examples,).

        A ball of radius 0 certifies nothing and is left out.
        """
        useful = radii > 0
        filled = (self.radii >= 0).sum(dim=1)
        self._at_most += 1
        if self._at_most > self.capacity:
            self._at_most = int((filled + useful).max())
        if self._at_most > self.capacity:
            self._grow(max(2 * self.capacity, 8))
        if self.capacity == 0:
            return
        slot = filled.clamp(max=self.capacity - 1)[:, None]
        self.radii.scatter_(1, slot, torch.where(useful[:, None], radii[:, None], self.radii.gather(1, slot)))
        of_centre = slot[:, :, None].expand(-1, -1, self.centres.shape[2])
        kept = self.centres.gather(1, of_centre)
        self.centres.scatter_(1, of_centre, torch.where(useful[:, None, None], centres[:, None], kept))

    def exit(self, origin: Tensor, direction: Tensor) -> Tensor:
        """`ray_exit` of each example: origin and unit direction (examples, dimensions) → (examples,)."""
        return ray_exit(origin, direction, self.centres, self.radii)

    def clear(self, chosen: Tensor) -> None:
        """Removes the balls of the examples of this mask."""
        self.radii = torch.where(chosen[:, None], -1.0, self.radii)

    @property
    def capacity(self) -> int:
        return self.radii.shape[1]

    def take(self, rows: Tensor) -> None:
        """Keeps only these examples."""
        self.centres, self.radii = self.centres[rows], self.radii[rows]

    def extend(self, other: Balls) -> None:
        """Appends the examples of another batch."""
        capacity = max(self.capacity, other.capacity)
        self._grow(capacity)
        other._grow(capacity)
        self._at_most = max(self._at_most, other._at_most)
        self.centres = torch.cat([self.centres, other.centres])
        self.radii = torch.cat([self.radii, other.radii])

    def _grow(self, capacity: int) -> None:
        more = capacity - self.capacity
        self.centres = F.pad(self.centres, (0, 0, 0, more))
        self.radii = F.pad(self.radii, (0, more), value=-1.0)


def ray_exit(origin: Tensor, direction: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """The largest t such that origin + s·direction lies in the union of the balls for all s in [0, t].

    origin, direction: (examples, dimensions), direction of unit length. centres: (examples, balls, dimensions).
    radii: (examples, balls), negative where there is no ball. Returns (examples,) ≥ 0; 0 where the origin itself
    is in no ball.

    This is the constraint of the paper's Eqs. epsilon_complex and correction, solved exactly: each ball intersects
    the ray in an interval, and the reach is extended over the intervals, in the order in which they begin, until one
    begins beyond it.
    """
    if centres.shape[1] == 0:
        return origin.new_zeros(len(origin))
    to_centre = centres - origin[:, None]
    along = torch.einsum("ebd,ed->eb", to_centre, direction)
    distance_squared = to_centre.square().sum(dim=2)
    inside = radii.square() - (distance_squared - along.square())  # half the chord, squared
    cuts = (radii >= 0) & (inside >= 0)
    half_chord = inside.clamp(min=0.0).sqrt()
    begin = torch.where(cuts, along - half_chord, torch.inf)
    end = torch.where(cuts, along + half_chord, 0.0).clamp(min=0.0)
    begin, order = begin.sort(dim=1)
    reach = end.gather(1, order).cummax(dim=1).values
    # The reach before each interval; the ray is covered from 0 up to the first one that begins beyond it.
    before = F.pad(reach[:, :-1], (1, 0))
    covered = (begin <= before).cumprod(dim=1)
    return (reach * covered).amax(dim=1)
