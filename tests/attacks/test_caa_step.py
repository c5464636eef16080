"""One step of the certification-aware attack, where its length and direction are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import Linear
from prescribed import fewest_votes, interval, prescribed, recording
from scipy import stats
from torch import Tensor, nn

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.caa.state import CaaState
from caa_cli.attacks.common.loop import Example
from caa_cli.config.choices import FIXED, TANGENTIAL
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Purpose

IMAGE = (1, 20, 20)


def plane() -> Linear:
    """A linear model whose normal is as far from every corner of the box, so that grey images may go 3.5 along it."""
    weight = 0.2 * (1.0 - 2.0 * (torch.arange(400) % 2))
    layer = nn.Linear(400, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(400), weight]))
        layer.bias.zero_()
    model = nn.Sequential(nn.Flatten(), layer)
    return Linear(SmoothedClassifier(model, sigma=0.5, num_classes=2, input_shape=IMAGE), weight, 0.0)


def begin(attack: CertificationAware, linear: Linear, clean: float, x: float, label: int = 1) -> CaaState:
    """An image and the point that the attack has come to, at these signed distances from the plane."""
    state = attack.start([Example(7, linear.at(clean), label)], linear.classifier)
    state.x = linear.at(x)[None]
    return state


def step(attack: CertificationAware, linear: Linear, state: CaaState) -> float:
    """One step; the signed distance of x from the plane after it."""
    attack.step(state, linear.classifier)
    state.iteration += 1
    return linear.distance(state.x[0])


def free(**settings: object) -> CertificationAware:
    """Steps as long as the certificates say."""
    return CertificationAware(**{"step_min": 1e-3, "step_max": 10.0, "sample_schedule": FIXED, **settings})


def certified(votes: int = 1500, samples: int = 1500, alpha: float = 0.005) -> float:
    """The radius of two classes' votes at σ = 0.5, by Goodman's bound."""
    chi2, p = stats.chi2.ppf(1 - alpha / 2, 1), votes / samples
    lower = np.roots([1 + chi2 / samples, -(2 * p + chi2 / samples), p * p]).real.min()
    return 0.5 * float(stats.norm.ppf(lower))


@pytest.mark.parametrize("overshoot", [1.05, 1.5])
def test_a_step_out_goes_just_beyond_the_certified_ball(overshoot: float):
    linear, attack = plane(), free(overshoot=overshoot)
    state = begin(attack, linear, clean=3.5, x=3.0)
    assert step(attack, linear, state) == pytest.approx(3.0 - overshoot * certified(), rel=1e-4)
    assert (state.found.item(), state.refined.item(), state.backward.item()) == (False, 0, 1500)


@pytest.mark.parametrize("undershoot", [0.95, 0.5])
def test_a_step_back_stays_just_within_the_certified_ball(undershoot: float):
    linear, attack = plane(), free(undershoot=undershoot)
    state = begin(attack, linear, clean=1.0, x=-3.0)
    assert step(attack, linear, state) == pytest.approx(-3.0 + undershoot * certified(), rel=1e-4)
    assert state.found.item()
    assert state.near_distance[0, 0].item() == pytest.approx(4.0, rel=1e-5)


@pytest.mark.parametrize("side", [1, -1])
def test_balls_are_those_of_the_side_that_x_is_on(side: int):
    """A ball of the other side ahead of x, which would carry the step on, does not."""
    linear, attack = plane(), free()
    state = begin(attack, linear, clean=3.5, x=3.0 * side)
    other = state.adversarial if side == 1 else state.original
    other.add(torch.tensor([0]), linear.at(2.0 * side).view(1, -1), torch.tensor([1.5]))
    factor = 1.05 if side == 1 else 0.95
    assert step(attack, linear, state) == pytest.approx(side * (3.0 - factor * certified()), rel=1e-4)
    radii = [balls.radii[balls.radii > 0].tolist() for balls in (state.original, state.adversarial)]
    mine, others = radii if side == 1 else radii[::-1]
    assert (mine, others) == ([pytest.approx(certified(), rel=1e-5)], [1.5])


def test_an_earlier_ball_carries_a_step_back_further():
    linear, attack = plane(), free()
    state = begin(attack, linear, clean=1.0, x=-3.0)
    state.adversarial.add(torch.tensor([0]), linear.at(-1.5).view(1, -1), torch.tensor([1.0]))
    assert step(attack, linear, state) == pytest.approx(-3.0 + 0.95 * 2.5, rel=1e-4)


def test_a_step_back_never_passes_the_clean_image():
    linear = plane()
    attack = CertificationAware(step_min=0.1)
    state = begin(attack, linear, clean=-1.0, x=-1.04)
    step(attack, linear, state)
    torch.testing.assert_close(state.x, state.clean)


def test_where_another_class_leads_without_certainty_the_step_is_the_shortest_outwards():
    """However far an earlier ball of the original class would carry it."""
    linear, attack = plane(), free(step_min=0.07)
    state = begin(attack, linear, clean=1.0, x=-0.05)
    state.original.add(torch.tensor([0]), linear.at(0.5).view(1, -1), torch.tensor([1.0]))
    votes = linear.classifier.votes(state.x, state.keys(0, torch.tensor([0])), 1500)[0]
    assert 750 < votes[0] < fewest_votes(1500, 1500, 2, 0.005, "goodman"), "open, and class 0 leads"
    assert step(attack, linear, state) == pytest.approx(-0.05 - 0.07, abs=1e-4)
    assert not state.found.item()


@pytest.mark.parametrize(("x", "moved"), [(3.0, -0.2), (-3.0, 0.2), (0.05, -0.1), (-0.12, 0.1)])
def test_steps_are_clipped_to_their_limits(x: float, moved: float):
    linear, attack = plane(), CertificationAware(step_min=0.1, step_max=0.2, sample_schedule=FIXED)
    state = begin(attack, linear, clean=3.5, x=x)
    assert step(attack, linear, state) == pytest.approx(x + moved, rel=1e-4)


def test_a_step_ends_in_the_box():
    """Pixels at the edge stay there, in steps out and in steps back."""
    linear, attack = plane(), free()
    outwards = -linear.weight.view(1, 1, 20, 20).sign()
    for x in (3.0, -3.0):
        state = begin(attack, linear, clean=3.5, x=x)
        edge = torch.rand(state.x.shape, generator=torch.Generator().manual_seed(0)) < 0.1
        corner = torch.where(outwards > 0, 1.0, 0.0)
        state.x, state.clean = torch.where(edge, corner, state.x), torch.where(edge, corner, state.clean)
        state.clean = torch.where(edge, 1.2 * corner - 0.1, state.clean)  # so that the way back leaves the box too
        step(attack, linear, state)
        assert 0.0 <= float(state.x.min()) <= float(state.x.max()) <= 1.0
        assert torch.equal(state.x[edge], corner[edge])


def test_a_second_stage_draws_new_samples_and_judges_all_of_them():
    linear = plane()
    classifier = recording(linear.classifier.model, 2, IMAGE)
    attack = CertificationAware()
    state = begin(attack, linear, clean=1.0, x=-0.08)
    state.found[:], state.iteration[:] = True, 9
    attack.step(state, classifier)
    stages = [(Purpose.SEARCH, 7, 9, 0, 250), (Purpose.SEARCH, 7, 9, 250, 250)]
    assert [draw.noise for draw in classifier.draws] == stages
    assert (state.forward.item(), state.backward.item()) == (500, 0)
    votes = linear.classifier.votes(linear.at(-0.08)[None], [classifier.draws[0].key], 500)
    assert torch.equal(state.near_votes[0, 0], votes[0])


@pytest.mark.parametrize(("stage", "total"), [(0, 250), (1, 500)])
@pytest.mark.parametrize("enough", [True, False])
def test_a_point_is_adversarial_at_its_stages_share_of_alpha(stage: int, total: int, enough: bool):
    """One vote fewer leaves it open: to the next stage, or for good."""
    votes = fewest_votes(total, total, 2, 0.01, "goodman") - (not enough)
    tables = [[total - votes, votes, 0]]
    if stage:
        tables = [[125, 125, 0], [total - votes - 125, votes - 125, 0]]
    elif not enough:
        tables.append([250, 0, 0])
    classifier, linear, attack = prescribed(*tables, shape=IMAGE), plane(), CertificationAware(alpha=0.02)
    state = begin(attack, linear, clean=1.0, x=-0.5, label=0)
    state.found[:] = True
    # The gradient of an open point is drawn in a pass of its own, which no votes are prescribed for.
    if enough:
        attack.step(state, classifier)
        assert torch.isfinite(state.near_distance[0, 0])
        assert state.forward.item() == total
    else:
        with pytest.raises(AssertionError, match="no more votes"):
            attack.step(state, classifier)
        assert not torch.isfinite(state.near_distance[0, 0])
        assert state.forward.item() == 500


def test_a_point_with_two_classes_above_the_label_is_decided():
    """Though neither of them leads; a second stage would have no votes here."""
    linear, attack = plane(), CertificationAware()
    state = CaaState.new([Example(7, linear.at(1.0), 0)], num_classes=3)
    state.x, state.found[:] = linear.at(-0.5)[None], True
    attack.step(state, prescribed([10, 120, 120, 0], shape=IMAGE))
    assert state.near_distance[0, 0].item() == pytest.approx(1.5, rel=1e-4)
    assert state.forward.item() == 250


def test_samples_that_abstain_shorten_the_step():
    """They count in the total, so that the radius is smaller than that of the votes alone."""
    linear, attack = plane(), free()
    state = begin(attack, linear, clean=1.0, x=-1.0, label=0)
    state.found[:] = True
    attack.step(state, prescribed([100, 1100, 300], shape=IMAGE))
    lower, upper = interval(1100, 1500, 2, 0.005, "goodman")[0], interval(100, 1500, 2, 0.005, "goodman")[1]
    radius = 0.25 * float(stats.norm.ppf(lower) - stats.norm.ppf(upper))
    assert linear.distance(state.x[0]) == pytest.approx(-1.0 + 0.95 * radius, abs=1e-4)


def test_patience_counts_steps_without_enough_gain_since_the_last_that_had_it():
    linear = plane()
    creeping = CertificationAware(step_min=0.002, step_max=0.002, patience=3, tolerance=0.01, iterations=99)
    state = begin(creeping, linear, clean=1.0, x=-1.0)
    stale = []
    while not state.done.item():
        step(creeping, linear, state)
        stale.append(state.stale.item())
    # Each step gains 0.1% of a distance of 2: after one that counts, three are not enough.
    assert stale == [0, 1, 2, 3]

    patient = CertificationAware(step_min=0.008, step_max=0.008, patience=3, tolerance=0.01, iterations=99)
    state = begin(patient, linear, clean=1.0, x=-1.0)
    for _ in range(12):
        step(patient, linear, state)
    # Each gains 0.4%: the third counts again, so patience never runs out.
    assert state.stale.item() < 3
    assert not state.done.item()


@pytest.mark.parametrize("patience", [0, 2])
def test_patience_begins_with_the_first_success_and_may_be_endless(patience: int):
    linear = plane()
    attack = CertificationAware(step_min=1e-4, step_max=1e-4, patience=patience)
    for x in (1.0, -1.0):
        state = begin(attack, linear, clean=1.0, x=x)
        for _ in range(5):
            step(attack, linear, state)
        assert state.done.item() == (patience > 0 and x < 0)


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
    state.original.add(torch.tensor([0]), linear.at(0.5).view(1, -1), torch.tensor([0.3]))
    for _ in range(2):
        step(attack, linear, state)
    assert (state.run.item(), state.found.item(), state.refined.item(), state.stale.item()) == (0, True, 2, 1)
    assert float(state.normal.norm()) == pytest.approx(1.75, rel=1e-4), "the sum of two normals, the older at 3/4"
    step(attack, linear, state)
    assert (state.run.item(), state.begun.item()) == (1, 3), "a third of seven steps is the first run's last"
    assert (state.found.item(), state.refined.item(), state.stale.item()) == (False, 0, 0)
    assert float(state.normal.norm()) == 0.0
    assert torch.equal(state.x, state.clean)
    for balls in (state.original, state.adversarial):
        assert not bool((balls.radii >= 0).any())
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
    state.found[:], state.refined[:] = True, refined
    reached = step(attack, linear, state)
    assert reached == pytest.approx(x + across, abs=2e-3)
    torch.testing.assert_close(state.x, linear.at(reached)[None], atol=1e-4, rtol=0.0)


@pytest.mark.parametrize(("refined", "longest"), [(0, 0.2), (3, 0.2 * 0.85**3), (60, 0.02)])
def test_slides_shrink_with_the_steps_since_the_first_success(refined: int, longest: float):
    linear, attack = plane(), CertificationAware(refine=TANGENTIAL, step_max=0.2)
    state = begin(attack, linear, clean=3.5, x=-3.0)
    state.found[:], state.refined[:] = True, refined
    before = state.x.clone()
    step(attack, linear, state)
    assert float((state.x - before).norm()) == pytest.approx(longest, rel=1e-3)
