"""One step of the certification-aware attack, where its length and direction are known in closed form."""

from __future__ import annotations

import pytest
import torch
from prescribed import fewest_votes, interval, prescribed, recording
from scipy import stats
from stepping import IMAGE, begin, certified, free, plane, step

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.caa.state import CaaState
from caa_cli.attacks.common.loop import Example
from caa_cli.config.choices import FIXED
from caa_cli.smoothing.bounds import separation
from caa_cli.smoothing.noise import Purpose


@pytest.mark.parametrize("overshoot", [1.05, 1.5])
def test_a_step_out_goes_just_beyond_the_certified_ball(overshoot: float):
    linear, attack = plane(), free(overshoot=overshoot)
    state = begin(attack, linear, clean=3.5, x=3.0)
    assert step(attack, linear, state) == pytest.approx(3.0 - overshoot * certified(), rel=1e-4)
    assert (state.succeeded.item(), state.refined.item(), state.backward.item()) == (False, 0, 1500)


@pytest.mark.parametrize("undershoot", [0.95, 0.5])
def test_a_step_back_stays_just_within_the_certified_ball(undershoot: float):
    linear, attack = plane(), free(undershoot=undershoot)
    state = begin(attack, linear, clean=1.0, x=-3.0)
    assert step(attack, linear, state) == pytest.approx(-3.0 + undershoot * certified(), rel=1e-4)
    assert state.succeeded.item()
    assert state.near_distance[0, 0].item() == pytest.approx(4.0, rel=1e-5)
    # The next one takes votes alone, and a gradient that is not needed is not lost.
    step(attack, linear, state)
    assert (state.backward.item(), state.lost_gradients.item()) == (1500, 0)


@pytest.mark.parametrize("certificate", ["cohen", "li", "lecuyer"])
@pytest.mark.parametrize("own", [True, False])
def test_a_step_is_as_long_as_its_certificate_says(certificate: str, own: bool):
    """Its own, or else that of the run."""
    linear = plane()
    attack = free(step_certificate=certificate) if own else free(certificate=certificate)
    state = begin(attack, linear, clean=3.5, x=3.0)
    radius = float(separation([0, 1500], 1500, 1, attack.alpha, attack.bound).radius(0.5, certificate))
    assert step(attack, linear, state) == pytest.approx(3.0 - 1.05 * radius, rel=1e-4)


@pytest.mark.parametrize("side", [1, -1])
def test_balls_are_those_of_the_side_that_x_is_on(side: int):
    """A ball of the other side ahead of x, which would carry the step on, does not."""
    linear, attack = plane(), free()
    state = begin(attack, linear, clean=3.5, x=3.0 * side)
    state.balls.add(linear.at(2.0 * side).view(1, -1), torch.tensor([1.5]), torch.tensor([side == -1]))
    factor = 1.05 if side == 1 else 0.95
    assert step(attack, linear, state) == pytest.approx(side * (3.0 - factor * certified()), rel=1e-4)
    assert state.balls.radii[0, :2].tolist() == [1.5, pytest.approx(certified(), rel=1e-5)]
    assert state.balls.sides[0, :2].tolist() == [side == -1, side == 1]


def test_an_earlier_ball_carries_a_step_back_further():
    linear, attack = plane(), free()
    state = begin(attack, linear, clean=1.0, x=-3.0)
    state.balls.add(linear.at(-1.5).view(1, -1), torch.tensor([1.0]), torch.tensor([False]))
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
    state.balls.add(linear.at(0.5).view(1, -1), torch.tensor([1.0]), torch.tensor([True]))
    votes = linear.classifier.keyed_votes(state.x, state.keys(0), 1500)[0]
    assert 750 < votes[0] < fewest_votes(1500, 1500, 2, 0.005, "goodman"), "open, and class 0 leads"
    assert step(attack, linear, state) == pytest.approx(-0.05 - 0.07, abs=1e-4)
    assert not state.succeeded.item()


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
    state.succeeded[:], state.iteration[:] = True, 9
    attack.step(state, classifier)
    stages = [(Purpose.SEARCH, 7, 9, 0, 250), (Purpose.SEARCH, 7, 9, 250, 250)]
    assert [draw.noise for draw in classifier.draws] == stages
    assert (state.forward.item(), state.backward.item()) == (500, 0)
    votes = linear.classifier.keyed_votes(linear.at(-0.08)[None], [classifier.draws[0].key], 500)
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
    state.succeeded[:] = True
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
    state = CaaState.begin([Example(7, linear.at(1.0), 0)], num_classes=3)
    state.x, state.succeeded[:] = linear.at(-0.5)[None], True
    attack.step(state, prescribed([10, 120, 120, 0], shape=IMAGE))
    assert state.near_distance[0, 0].item() == pytest.approx(1.5, rel=1e-4)
    assert state.forward.item() == 250


def test_samples_that_abstain_shorten_the_step():
    """They count in the total, so that the radius is smaller than that of the votes alone."""
    linear, attack = plane(), free()
    state = begin(attack, linear, clean=1.0, x=-1.0, label=0)
    state.succeeded[:] = True
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
