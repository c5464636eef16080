"""Tangential refinement: a step along the boundary, to the point of it that is nearest to the clean image.

The paper's correction moves only on the ray to the clean image, so the point where the boundary was first crossed
nearly determines the result. Moving along the boundary leads nearer wherever its normal does not point away from the
clean image.

Let u be the boundary's normal at x, towards the other side, and c the distance by which the certificates let x cross:
on the adversarial side −(1 − δ₂)·r, within the certified ball as in the correction; on the label's side (1 + δ₁)·r,
out of it as in CAA_iter; where the votes leave the class undecided, outwards by the shortest step, because only
decided points can be kept. The step is towards the point nearest to the clean image in the box and in the half-space
{z: ⟨u, z − x⟩ ≥ c}. Its part along u is the paper's step, the rest is the slide.
"""

from __future__ import annotations

from torch import Tensor

from caa_cli.attacks.common.projection import step_beyond

# The weight of the earlier normals after each step, against 1: a single normal is off by ten degrees and more.
MEMORY = 0.75
# The limits of a step shrink by the factor with every step: at first they bound how far the boundary is assumed flat,
# later how far the noise of normals and votes can lead astray.
SHRINK, SHORTEST = 0.85, 0.02


def slide(clean: Tensor, point: Tensor, normal: Tensor, across: Tensor, longest: Tensor) -> Tensor:
    """The next points, (rows, dimensions), in the box if `point` is; clean, point, normal (unit) likewise.

    across: (rows,) c above. longest: (rows,) the greatest length of a step.
    """
    need = ((point - clean) * normal).sum(dim=1) + across
    return step_beyond(clean, point, normal, need, longest)[0]
