"""The certification-aware attack against models whose nearest adversarial point is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import SmallNet, make_linear, make_small
from stepping import attack_at
from torch import nn

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.caa.state import CaaState
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.choices import FIXED, SAMPLE_SCHEDULES, STAGED
from caa_cli.smoothing.bounds import separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.verification.verifier import Verifier

DISTANCES = (1.0, 1.2, 1.5, 1.8, 2.2)


@pytest.mark.parametrize("sigma", [0.25, 0.5])
def test_on_a_linear_model_every_verified_radius_is_within_five_percent(sigma: float):
    linear = make_linear(sigma=sigma)
    verifier = Verifier()
    for finding, distance in zip(attack_at(linear, DISTANCES, CertificationAware()), DISTANCES, strict=True):
        proved = verifier.verify(finding, linear.classifier)
        assert proved.radius is not None
        # The proof is wrong with probability 0.005, and then by about a standard error of the votes.
        assert distance * 0.995 <= proved.radius <= 1.05 * distance
        assert proved.adversarial_class == 0
        assert linear.distance(proved.image) < 0, "the point lies beyond the plane"


@pytest.mark.parametrize("schedule", SAMPLE_SCHEDULES)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_examples_result_does_not_depend_on_the_batch(batch: int, schedule: str):
    attack = CertificationAware(iterations=25, sample_schedule=schedule)
    alone = attack_at(make_linear(), DISTANCES, attack, batch=1)
    together = attack_at(make_linear(), DISTANCES, attack, batch=batch)
    for one, other in zip(alone, together, strict=True):
        assert one.iterations == other.iterations
        assert one.forward_evaluations == other.forward_evaluations
        assert [c.distance for c in one.candidates] == pytest.approx([c.distance for c in other.candidates], rel=1e-4)


def test_the_seed_decides():
    def distances(seed: int) -> list[float]:
        found = attack_at(make_linear(), (1.0,), CertificationAware(iterations=25, seed=seed, sample_schedule=FIXED))
        return [candidate.distance for candidate in found[0].candidates]

    assert distances(1) == distances(1)
    assert distances(1) != distances(2)


class Recording(CertificationAware):
    """Notes each step's length and kind, to hold them against the equations."""

    def step(self, state: CaaState, classifier: SmoothedClassifier) -> None:
        before, found = state.x.clone(), state.near_distance[:, 0].clone()
        forward, backward = state.forward.clone(), state.backward.clone()
        super().step(state, classifier)
        self.log.append(
            {
                "length": float((state.x - before).norm()),
                "from": float((before - state.clean).norm()),
                "to": float((state.x - state.clean).norm()),
                "improved": bool(state.near_distance[0, 0] < found[0]),
                "forward": int(state.forward - forward),
                "backward": int(state.backward - backward),
            }
        )

    log: list[dict[str, float]]


def recorded(distance: float = 1.6, **settings: float) -> list[dict[str, float]]:
    attack = Recording(sample_schedule=FIXED, **settings)
    object.__setattr__(attack, "log", [])
    attack_at(make_linear(), (distance,), attack)
    return attack.log


def test_every_step_is_clipped_to_its_limits():
    log = recorded(iterations=30, patience=0)
    lengths = np.array([entry["length"] for entry in log])
    assert (lengths >= 0.1 - 1e-5).all()
    assert (lengths <= 0.25 + 1e-5).all()


def test_steps_go_out_until_the_class_changes_and_then_back():
    log = recorded(iterations=30, patience=0)
    first = next(i for i, entry in enumerate(log) if entry["improved"])
    assert all(entry["to"] > entry["from"] for entry in log[:first])
    assert log[first]["to"] < log[first]["from"]


def test_refinement_draws_votes_only_and_the_search_gradients_with_its_votes():
    log = recorded(iterations=30, patience=0)
    first = next(i for i, entry in enumerate(log) if entry["improved"])
    assert all((entry["forward"], entry["backward"]) == (1500, 1500) for entry in log[: first + 1])
    refining = [entry for entry in log[first + 1 :] if entry["to"] < entry["from"]]
    assert refining
    assert all((entry["forward"], entry["backward"]) == (1500, 0) for entry in refining)


def test_wider_limits_let_the_certificate_set_the_step():
    """Far from the plane, with votes all for one class, the step is 1.05 times the certified radius."""
    log = recorded(distance=2.6, iterations=1, step_max=10.0)
    certified = separation([0, 1500], 1500, 1, 0.005, "goodman").radius(0.5)
    assert log[0]["length"] == pytest.approx(1.05 * certified, rel=1e-4)
    doubled = recorded(distance=2.6, iterations=1, step_max=10.0, overshoot=2.1)
    assert doubled[0]["length"] == pytest.approx(2 * log[0]["length"], rel=1e-4)


def test_an_earlier_ball_lengthens_the_step():
    """The step ends where the union of all balls of the original class does, not only that of the current point."""
    linear = make_linear()
    attack = CertificationAware(step_max=10.0, sample_schedule=FIXED)
    steps = []
    for earlier in (False, True):
        state = attack.start([Example(0, linear.at(1.0), 1)], linear.classifier)
        if earlier:
            state.balls.add(linear.at(0.5).view(1, -1), torch.tensor([0.7]), torch.tensor([True]))
        attack.step(state, linear.classifier)
        steps.append(1.0 - linear.distance(state.x[0]))
    own, union = steps
    assert own < 1.05
    assert union == pytest.approx(1.05 * 1.2, rel=0.01)


def test_an_example_stops_when_it_no_longer_gains():
    patient = attack_at(make_linear(), (1.0,), CertificationAware(patience=0))[0]
    stopping = attack_at(make_linear(), (1.0,), CertificationAware(patience=8))[0]
    assert patient.iterations == 100
    assert stopping.iterations < 40
    assert stopping.candidates[0].distance <= patient.candidates[0].distance + 0.1


def test_candidates_are_the_nearest_and_in_order():
    for finding in attack_at(make_linear(), (0.8, 1.7), CertificationAware()):
        distances = [candidate.distance for candidate in finding.candidates]
        assert distances == sorted(distances)
        for candidate in finding.candidates:
            measured = float((candidate.image - finding.example.image).norm())
            assert candidate.distance == pytest.approx(measured, rel=1e-5)
            assert 0.0 <= float(candidate.image.min()) <= float(candidate.image.max()) <= 1.0
            assert int(candidate.votes.sum()) in CertificationAware().stages()


def test_the_schedule_takes_a_fraction_of_the_samples_for_the_same_radius():
    linear, verifier, costs, radii = make_linear(), Verifier(), {}, {}
    for schedule in SAMPLE_SCHEDULES:
        found = attack_at(linear, DISTANCES, CertificationAware(sample_schedule=schedule))
        costs[schedule] = sum(finding.forward_evaluations + finding.backward_evaluations for finding in found)
        radii[schedule] = [verifier.verify(finding, linear.classifier).radius for finding in found]
    assert costs[STAGED] < costs[FIXED] / 3
    assert radii[STAGED] == pytest.approx(radii[FIXED], rel=0.03)


@pytest.mark.parametrize(
    ("samples", "stages"), [(1500, [250, 500]), (1000, [166, 333]), (600, [128, 200]), (500, [128]), (100, [100])]
)
def test_stages_are_a_sixth_and_a_third_and_hold_the_gradients_pilot(samples: int, stages: list[int]):
    assert CertificationAware(samples=samples).stages() == stages
    assert CertificationAware(samples=samples, sample_schedule=FIXED).stages() == [samples]


def test_only_points_that_stay_open_get_more_samples():
    linear, attack = make_linear(), CertificationAware()
    first, last = attack.stages()
    state = attack.start([Example(0, linear.at(1.0), 1), Example(1, linear.at(0.0), 1)], linear.classifier)
    attack.step(state, linear.classifier)
    assert state.forward.tolist() == [first, last]
    assert state.backward.tolist() == [first, first]


def test_a_model_without_gradient_is_said_to_have_none():
    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, 1.0]).expand(len(x), 2) + 0.0 * x.sum()

    classifier = SmoothedClassifier(Constant(), sigma=0.5, num_classes=2, input_shape=(1, 20, 20))
    example = Example(0, torch.full((1, 20, 20), 0.5), 1)
    (finding,) = Search(CertificationAware(iterations=5), classifier).run([example])
    assert finding.candidates == []
    assert finding.lost_gradients == 5


def test_the_clean_image_itself_is_no_candidate():
    """Few samples may turn the vote of an image at the boundary; at distance 0 there is nothing to prove."""
    linear = make_linear()
    attack = CertificationAware(samples=20, iterations=3, alpha=0.4)
    for finding in attack_at(linear, (-0.5, -0.1, 0.01), attack):
        assert all(candidate.distance > 0 for candidate in finding.candidates)


def test_a_curved_model_is_attacked_too_and_stays_in_the_box():
    classifier = make_small(sigma=0.25)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = classifier.model(images).argmax(dim=1).tolist()
    examples = [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    found = list(Search(CertificationAware(samples=500), classifier, 2).run(examples))
    assert len(found) == 4
    assert sum(bool(finding.candidates) for finding in found) >= 3


def test_examples_are_drawn_only_as_places_free_up():
    linear, drawn, done = make_linear(), [], 0

    def stream():
        for index in range(6):
            drawn.append(index)
            yield Example(index, linear.at(0.8), 1)

    for finding in Search(CertificationAware(iterations=20, samples=300), linear.classifier, batch=2).run(stream()):
        done += 1
        assert len(drawn) <= done + 3
        assert finding.seconds > 0
    assert (done, len(drawn)) == (6, 6)


def test_settings_are_frozen():
    attack = CertificationAware()
    assert replace(attack, samples=10).samples == 10
    with pytest.raises(AttributeError):
        attack.samples = 10  # type: ignore[misc]
    assert isinstance(SmallNet(), nn.Module)
