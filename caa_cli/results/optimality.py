"""The optimality of attacks (AttackBench: Cinà et al., 2025).

The robust accuracy of the model under an attack, by budget: the share of images whose radius is larger. No curve lies
below that of the smallest radius of all attacks, image by image. Up to d, the largest of those smallest radii,

    optimality = 1 − (area − best area) / (d − best area),

so 1 for an attack that is the nearest on every image, and 0 for one that breaks nothing within d. An image with
radius r adds min(r, d) to the area under a curve, so this is Σ (d − min(r, d)) / Σ (d − min(smallest r, d)).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def optimalities(radii: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The optimality of each attack; None where no attack broke an image, or all images have one smallest radius.

    radii: one for each attack and image, infinite for a failure.
    """
    table = np.array(radii, dtype=np.float64)
    if not table.size:
        return [None] * len(table)
    best = table.min(axis=0)
    found = [float(optimality(row, best)) for row in table]
    return [None if np.isnan(value) else value for value in found]


def optimality(radii: Array, best: Array) -> Array:
    """The optimality of an attack; NaN where it is not defined.

    radii, best: those of the attack and the smallest of all attacks, (…, images), infinite for a failure.
    """
    reach = np.where(np.isfinite(best), best, 0.0).max(axis=-1, keepdims=True)
    won = np.maximum(reach - radii, 0.0).sum(axis=-1)
    possible = np.maximum(reach - best, 0.0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(won / possible)
