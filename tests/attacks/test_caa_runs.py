"""Steps of the certification-aware attack beyond the paper: one run after another, and slides along the boundary."""

from __future__ import annotations

import pytest
import torch
from conftest import Linear
from stepping import IMAGE, begin, certified, free, plane, step
from torch import Tensor, nn

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.config.choices import TANGENTIAL
from caa_cli.smoothing.classifier import SmoothedClassifier


class ThreeClasses(nn.Module):
    """Class 0 on one side of a linear model's plane, on the other class 1, and never class 2."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self.inner = linear.classifier.model

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(self.inner(x), (0, 1), value=-1e3)


def three(linear: Linear) -> Linear:
    classifier = SmoothedClassifier(
        ThreeClasses(linear), sigma=0.5, num_classes=3, input_shape=IMAGE, gradient_chunk=2048
    )
    return Linear(classifier, linear.weight, linear.offset)


@pytest.mark.parametrize(
    ("x", "refined", "nearest", "over"),
    [
        (0.5, 0, 0.48, False),  # 0.5 away, less than 1.1 times as far
        (0.5, 0, 0.42, True),  # further than the run before has come to, and nothing found
        (-0.5, 0, 1.2, False),  # found, but has not refined yet
        (-0.5, 3, 1.2, True),  # has refined for long enough to be at its boundary
        (-0.5, 3, 1.4, False),
    ],
)
def test_a_run_is_given_up_once_it_is_behind_the_one_before(x: float, refined: int, nearest: float, over: bool):
    """All on the first of two runs: one that is given up is followed by the next, from the clean image."""
    linear = three(plane())
    attack = CertificationAware(rivals=2, iterations=1000, step_min=1e-3, step_max=1e-3, patience=0)
    state = begin(attack, linear, clean=1.0, x=x)
    state.near_distance[0, 0], state.refined[:] = nearest, refined
    step(attack, linear, state)
    assert (state.run.item(), state.done.item()) == (int(over), False)
    assert torch.equal(state.x, state.clean) == over


def test_every_run_has_its_share_of_the_steps_and_begins_anew():
    linear = three(plane())
    attack = CertificationAware(
        rivals=2, iterations=7, step_min=0.01, step_max=0.01, tolerance=0.5, patience=5, refine=TANGENTIAL
    )
    state = begin(attack, linear, clean=1.0, x=-1.0)
    state.balls.add(linear.at(0.5).view(1, -1), torch.tensor([0.3]), torch.tensor([True]))
    for _ in range(2):
        step(attack, linear, state)
    assert (state.run.item(), state.succeeded.item(), state.refined.item(), state.stale.item()) == (0, True, 2, 1)
    assert float(state.normal.norm()) == pytest.approx(1.75, rel=1e-4), "the sum of two normals, the older at 3/4"
    step(attack, linear, state)
    assert (state.run.item(), state.begun.item()) == (1, 3), "a third of seven steps is the first run's last"
    assert (state.succeeded.item(), state.refined.item(), state.stale.item()) == (False, 0, 0)
    assert float(state.normal.norm()) == 0.0
    assert torch.equal(state.x, state.clean)
    assert not bool(state.balls.radii.any())
    assert torch.isfinite(state.near_distance[0, 0]), "what was found is kept"
    for _ in range(3):
        assert not state.done.item()
        step(attack, linear, state)
    assert (state.run.item(), state.done.item()) == (1, True)


def test_several_runs_follow_their_rivals_from_either_side():
    """With the label 1 or 0, the way out is across the plane."""
    linear = three(plane())
    attack = CertificationAware(rivals=2, iterations=100, step_min=0.1, step_max=0.1)
    for label, clean in ((1, 3.0), (0, -3.0)):
        state = begin(attack, linear, clean, clean, label)
        assert state.rivals[0, 0] == 1 - label
        assert step(attack, linear, state) == pytest.approx(clean * 2.9 / 3.0, rel=1e-4)


def sideways(linear: Linear, length: float) -> Tensor:
    """Along the plane."""
    direction = torch.randn(400, generator=torch.Generator().manual_seed(3))
    normal = linear.weight / linear.weight.norm()
    direction -= (direction @ normal) * normal
    return (length * direction / direction.norm()).view(1, 1, 20, 20)


@pytest.mark.parametrize(
    ("x", "refined", "across"),
    [
        (3.0, 0, -1.05 * certified()),  # out of the certified ball of the label's side
        (-3.0, 0, 0.95 * certified()),  # within that of the other
        (0.0, 2, -0.04 * 0.85**2),  # open: outwards, by a step that has shrunk twice
    ],
)
def test_a_slide_goes_to_the_nearest_point_that_the_certificate_allows(x: float, refined: int, across: float):
    """Of the half-space beyond x, moved across by that, the point nearest to the clean image lies straight ahead."""
    linear, attack = plane(), free(refine=TANGENTIAL, step_min=0.04)
    state = begin(attack, linear, clean=3.5, x=x)
    state.x += sideways(linear, 0.5)
    state.succeeded[:], state.refined[:] = True, refined
    reached = step(attack, linear, state)
    assert reached == pytest.approx(x + across, abs=2e-3)
    torch.testing.assert_close(state.x, linear.at(reached)[None], atol=1e-4, rtol=0.0)


@pytest.mark.parametrize(("refined", "longest"), [(0, 0.2), (3, 0.2 * 0.85**3), (60, 0.02)])
def test_slides_shrink_with_the_steps_since_the_first_success(refined: int, longest: float):
    linear, attack = plane(), CertificationAware(refine=TANGENTIAL, step_max=0.2)
    state = begin(attack, linear, clean=3.5, x=-3.0)
    state.succeeded[:], state.refined[:] = True, refined
    before = state.x.clone()
    step(attack, linear, state)
    assert float((state.x - before).norm()) == pytest.approx(longest, rel=1e-3)
