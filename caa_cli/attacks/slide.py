"""Tangential refinement: a step along the boundary, to the point of it that is nearest to the clean image.

The paper's correction moves on the ray to the clean image alone, so where the boundary was first met all but decides
where the attack ends. But only where the boundary's normal points away from the clean image is there no way along it
that leads nearer.

Let u be the boundary's normal at x, towards the other side, and c how far the certificates let x cross: on the
adversarial side −(1 − δ₂)·r, within the certified ball as in the correction; on the label's side (1 + δ₁)·r, out of
it as in CAA_iter; where the votes leave the class open outwards by the shortest step, for only points that are not
open can be kept. The step is towards the point nearest to the clean image in the box and in the half-space
{z: ⟨u, z − x⟩ ≥ c}. Its part along u is the paper's step, the rest is the slide.
"""

from __future__ import annotations

from torch import Tensor

from caa_cli.attacks.geometry import no_longer
from caa_cli.attacks.newton import shortest

# What the normals of the steps so far weigh after each step, against 1: each alone is off by ten degrees and more.
MEMORY = 0.75
# The limits of a step shrink by the factor with every step. At first they bound how far the boundary is trusted to be
# flat, later how far the noise of the normals and of the votes can lead astray.
SHRINK, SHORTEST = 0.85, 0.02


def slide(clean: Tensor, point: Tensor, normal: Tensor, across: Tensor, longest: Tensor) -> Tensor:
    """The next points, (rows, dimensions), in the box if `point` is; clean, point, normal (unit) likewise.

    across: (rows,) c above. longest: (rows,) the length that no step exceeds.
    """
    need = ((point - clean) * normal).sum(dim=1) + across
    move = clean + shortest(clean, normal, need) - point
    return (point + no_longer(move, longest)).clamp(0.0, 1.0)
