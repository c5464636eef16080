"""Newton's method on the certified radius, against planes and boxes whose nearest points are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make_linear, make_small
from scipy import stats
from scipy.linalg import hadamard
from scipy.optimize import minimize
from stepping import attack_at
from torch import nn
from torch.overrides import TorchFunctionMode

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.loop import Candidate, Example, Finding, Search
from caa_cli.attacks.common.projection import project_beyond, step_beyond
from caa_cli.attacks.common.race import margins
from caa_cli.attacks.common.runs import RunEvaluation, RunStep
from caa_cli.attacks.newton.attack import Newton, Plane
from caa_cli.attacks.newton.boundary_walk import BoundaryWalk
from caa_cli.smoothing.chunks import Piece
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientSource
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio
from caa_cli.smoothing.stein import SteinEstimator
from caa_cli.verification.line_search import margin
from caa_cli.verification.verifier import Verifier

DISTANCES = (0.6, 1.0, 1.6, 2.4)
RIVAL = torch.tensor([1])


@pytest.mark.parametrize("sigma", [0.25, 0.5])
def test_on_a_linear_model_the_verified_radius_is_the_distance_and_the_margin_of_the_proof(sigma: float):
    linear, verifier = make_linear(sigma=sigma), Verifier(samples=10_000)
    for finding, distance in zip(attack_at(linear, DISTANCES, Newton()), DISTANCES, strict=True):
        proved = verifier.verify(finding, linear.classifier)
        assert proved.radius is not None
        # What Goodman's bounds at a quarter of α ask of 10,000 votes, about 0.045 σ, and the spread of the votes.
        assert -0.01 * sigma < proved.radius - distance < 0.09 * sigma + 0.01 * distance
        assert linear.distance(proved.image) < 0


def test_the_margin_of_a_run_is_the_one_of_the_line_search():
    votes, samples, sigma = torch.tensor([[70, 20, 10], [0, 100, 0]]), 100, 0.5
    labels, rivals = torch.tensor([0, 0]), torch.tensor([1, 1])
    runs, _ = margins(votes, torch.zeros(2, 3), labels, rivals, samples, sigma)
    for row in range(2):
        assert float(runs[row]) == pytest.approx(margin(votes[row].numpy(), samples, (1, 0), sigma).h, rel=1e-6)
    assert float(runs[0]) == pytest.approx(0.25 * (stats.norm.ppf(0.2) - stats.norm.ppf(0.7)), rel=1e-6)
    assert float(runs[1]) == pytest.approx(-0.5 * stats.norm.ppf(0.5 / samples), rel=1e-6)


def test_a_step_is_no_longer_than_its_limit_and_ends_at_the_nearest_point_within_it():
    clean, point = torch.full((2, 4), 0.5), torch.full((2, 4), 0.5) + torch.tensor([0.0, 0.3, 0.0, 0.0])
    direction = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(2, 4)
    step, nearest = step_beyond(clean, point, direction, torch.full((2,), 0.2), torch.tensor([1.0, 0.1]))
    assert torch.allclose(nearest, clean + 0.2 * direction)
    assert torch.allclose(step[0], nearest[0])
    assert float((step[1] - point[1]).norm()) == pytest.approx(0.1, rel=1e-5)
    free = step_beyond(clean, point, direction, torch.full((2,), 0.2), torch.tensor([1.0, 0.1]), 0.2 * direction)[0]
    assert torch.allclose(free[1], point[1] + torch.tensor([0.2, -0.1, 0.0, 0.0])), "the limit is of the rest"


@pytest.mark.parametrize(("distance", "guessed"), [(0.1, True), (0.25, True), (0.4, False)])
def test_a_search_that_ends_short_of_the_boundary_leaves_the_finish_a_guess(distance: float, guessed: bool):
    linear, attack = make_linear(sigma=0.5), Newton()
    state = attack.start([Example(0, linear.at(1.0), 1)], linear.classifier)
    state.alive[0, 1:] = False
    state.iteration += attack.steps - 1
    state.point[0, 0] = linear.at(distance).flatten()
    attack.step(state, linear.classifier)
    assert bool(state.near_distance[0, 0].isfinite()) == guessed
    assert not bool(state.near_confident[0, 0])


def test_the_direction_is_within_a_few_degrees_of_the_normal():
    linear = make_linear()
    for finding in attack_at(linear, (1.0, 2.0), Newton()):
        delta = (finding.candidates[0].image - finding.example.image).flatten()
        cosine = float(delta @ -linear.weight / (delta.norm() * linear.weight.norm()))
        assert cosine > math.cos(math.radians(3))


@pytest.mark.parametrize("agreement", [0.3, 0.9, 1.0])
def test_noisy_normals_of_many_dimensions_lead_to_the_nearest_point_all_the_same(agreement: float):
    """A linear h with its boundary at 2, and normals of which two have `agreement` as their scalar product."""
    dimensions, generator = 20_000, torch.Generator().manual_seed(0)
    normal = torch.zeros(1, dimensions)
    normal[0, 0] = 1.0
    clean, one, true = torch.zeros(1, dimensions), torch.ones(1), torch.ones(1, dtype=torch.bool)
    plane, point = Plane(clean, clean, 0.0 * one, 0.0 * one, 0.0 * one, one), clean
    for _ in range(60):
        noise = torch.nn.functional.normalize(torch.randn(1, dimensions, generator=generator))
        measured = math.sqrt(agreement) * normal + math.sqrt(1.0 - agreement) * noise
        height = point[:, 0] - 2.0
        plane = plane.averaged(
            RunEvaluation(RIVAL, point, height, one, measured, measured, ~true, None), Newton.memory, true, 30
        )
        along = torch.nn.functional.normalize(plane.normal)
        point = (-plane.height / along[:, 0] + (plane.anchor * along).sum(dim=1))[:, None] * along
    assert float(plane.agreement) == pytest.approx(agreement, abs=0.05)
    assert float(height) == pytest.approx(0.0, abs=0.04), "the point is where the plane says that the boundary is"
    assert 2.0 - 0.02 < float(point.norm()) < 2.0 * (1.0 + 0.03 * (agreement < 1.0)) + 0.02


def test_without_a_gradient_a_plane_stays_as_it_is():
    one, vector = torch.ones(1), torch.tensor([[3.0, 4.0]])
    plane = Plane(0.2 * vector, vector, 0.1 * one, 30.0 * one, 40.0 * one, 0.8 * one)
    lost = RunEvaluation(RIVAL, 2.0 * vector, -one, one, 0.0 * vector, 0.0 * vector, one > 0, None)
    for was_near in (one > 0, one < 0):
        for name, value in vars(plane.averaged(lost, 0.75, was_near, 30)).items():
            assert torch.equal(value, getattr(plane, name)), name


def test_normals_of_which_rounding_makes_the_product_more_than_one_keep_the_memory():
    one, longer = torch.ones(1), torch.tensor([[1.0 + 1e-6, 0.0]])
    plane = Plane(longer, longer, one, 30.0 * one, 30.0 * one, one)
    for _ in range(3):
        plane = plane.averaged(
            RunEvaluation(RIVAL, longer, one, one, longer, longer, one < 0, None), 0.75, one > 0, 30
        )
        assert float(plane.agreement) == 1.0
    assert float(plane.normal_weight) == 30.0 * (1 + 0.75 + 0.75**2 + 0.75**3)


def test_far_away_normals_are_averaged_while_heights_are_the_newest():
    one, first, second = torch.ones(1), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    plane = Plane(first, first, -3.0 * one, 30.0 * one, 50.0 * one, one)
    seen = RunEvaluation(RIVAL, 2.0 * second, -one, one, second, second, one < 0, None)
    near, far = (plane.averaged(seen, 0.5, was_near, 15) for was_near in (one > 0, one < 0))
    for averaged in (near, far):
        assert averaged.normal.tolist() == [[0.5, 0.5]], "half of 30 samples weighs as much as 15 new ones"
    assert (far.anchor.tolist(), far.height.tolist(), far.height_weight.tolist()) == ([[0.0, 2.0]], [-1.0], [15.0])
    # Heights are kept for longer: nine tenths of 50 samples weigh three times as much as 15.
    assert (near.anchor.tolist(), near.height.tolist(), near.height_weight.tolist()) == (
        [[0.75, 0.5]],
        [-2.5],
        [60.0],
    )


def test_steps_stay_long_on_a_straight_way_and_shrink_where_it_turns():
    linear, attack = make_linear(), Newton(rivals=1)
    state = attack.start([Example(0, linear.at(1.0), 1)], linear.classifier)
    now = RunStep(torch.tensor([0]), torch.tensor([0]), [0], iteration=0, samples=16)
    move = torch.zeros_like(state.move[0])
    move[0, 0] = 0.1
    aside = move.flip(1)
    lengths = []
    # Straight on is within 60°. The last one is of a run that stayed, as its gradient was lost.
    for made in (move, move, aside, aside + move, aside + 3.0 * move, -move, 0.0 * move):
        attack._limit(state, now, made)
        lengths.append(float(state.longest))
    turned = 0.5 * 0.85
    assert lengths == pytest.approx([turned, 0.5, turned, 0.5, 0.5, turned, 0.85 * turned])
    for sign in (1, -1) * 10:
        attack._limit(state, now, sign * move)
    assert float(state.longest) == pytest.approx(0.02), "the least"


def test_votes_give_the_slope_by_steins_lemma():
    linear, n, distance = make_linear(), 40_000, 0.3
    normal = -(linear.weight / linear.weight.norm())[None]
    x, one, zero = linear.at(distance)[None], torch.tensor([1]), torch.tensor([0])
    passed = linear.classifier.towards(x, one, zero, [Key(0, 0, Purpose.SEARCH)], n, normal)
    sigma = linear.classifier.sigma
    slope = stats.norm.pdf(distance / sigma) / sigma
    assert passed.moments[0, 0] / sigma**2 == pytest.approx(slope, abs=4.5 / (sigma * math.sqrt(n)))
    assert passed.moments[0, 1] / sigma**2 == pytest.approx(-slope, abs=4.5 / (sigma * math.sqrt(n)))
    h, slope = margins(passed.votes, passed.moments, one, zero, n, sigma)
    assert float(h) == pytest.approx(-distance, abs=0.02)
    assert float(slope) == pytest.approx(1.0, abs=0.05)


def test_the_known_mean_of_the_noise_takes_half_of_the_variance_from_a_margin():
    linear, n, count = make_linear(), 64, 150
    attack = Newton(rivals=1)
    state = attack.start([Example(index, linear.at(0.0), 1) for index in range(count)], linear.classifier)
    rows = torch.arange(count)
    now = RunStep(rows, torch.zeros_like(rows), rows.tolist(), iteration=0, samples=n)
    normal = -(linear.weight / linear.weight.norm()).expand(count, -1)
    corrected = attack.evaluate(state, linear.classifier, now, normal).margin
    plain = attack.evaluate(state, linear.classifier, now, torch.zeros_like(normal)).margin
    assert float(plain.var()) == pytest.approx(linear.classifier.sigma**2 * math.pi / 2 / n, rel=0.4)
    assert float(corrected.var()) < 0.55 * float(plain.var())
    assert float(corrected.mean()) == pytest.approx(0.0, abs=4.0 * float(corrected.std()) / math.sqrt(count))


@pytest.mark.parametrize("source", [WhiteBox, SteinEstimator])
def test_the_moments_add_up_to_the_mean_of_the_noise_whoever_abstains(source: type[GradientSource]):
    """Of 0/0 logits, an abstention, where the noise of one pixel is positive."""

    class Abstains(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = x.flatten(1)[:, :3]
            return torch.where(logits[:, :1] > 0.5, torch.nan, logits)

    x, key = torch.full((1, 1, 2, 2), 0.5), [Key(0, 0, Purpose.SEARCH)]
    along, n = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), 200
    classifier = SmoothedClassifier(Abstains(), sigma=0.5, num_classes=3, input_shape=(1, 2, 2), gradients=source())
    passed = classifier.towards(x, torch.tensor([1]), torch.tensor([2]), key, n, along)
    noise = classifier.noisy(x, key, Piece(slice(0, 1), slice(0, n))).view(n, 4) - 0.5
    assert int(passed.votes.sum()) < 0.7 * n
    assert float(passed.moments.sum()) == pytest.approx(float(noise[:, 0].mean()), abs=1e-5)


def test_few_samples_do_not_starve_an_evaluation():
    steps = range(30)
    draws = {samples: [Newton(samples=samples).draws(step) for step in steps] for samples in (30, 100, 375, 750)}
    assert draws[100] == draws[375]
    assert draws[30] == [min(30, most) for most in draws[375]]
    assert draws[750] == pytest.approx([2 * few for few in draws[375]], abs=1)
    assert BoundaryWalk(samples=30).draws(0) == 10, "its shares are of thousands"


@pytest.mark.parametrize("chunk", [7, 64, 1000])
def test_the_moments_do_not_depend_on_the_chunk(chunk: int):
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels, rivals = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    along = torch.nn.functional.normalize(torch.randn(3, 64, generator=torch.Generator().manual_seed(2)), dim=1)
    keys = [Key(0, index, Purpose.SEARCH) for index in range(3)]

    def moments(chunk: int) -> torch.Tensor:
        return make_small(gradient_chunk=chunk).towards(x, labels, rivals, keys, 300, along).moments

    assert torch.allclose(moments(chunk), moments(10_000), atol=1e-5)


def test_the_smoothed_logits_are_those_that_come_with_a_gradient():
    classifier, keys = make_small(votes_chunk=64), [Key(0, index, Purpose.SEARCH) for index in range(2)]
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1])
    with_gradient = classifier.surrogate(x, labels, keys, 300, LogRatio()).log_mean
    assert torch.allclose(classifier.log_mean(x, keys, 300), with_gradient, atol=1e-5)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), need=st.floats(-0.5, 1.2))
def test_the_shortest_step_to_a_half_space_within_the_box(seed: int, need: float):
    generator = np.random.default_rng(seed)
    clean = np.where(generator.random(6) < 0.5, generator.random(6), generator.integers(0, 2, 6))
    direction = generator.normal(size=6)
    direction /= np.linalg.norm(direction)
    most = float((np.where(direction > 0, 1.0, 0.0) - clean) @ direction)
    found = project_beyond(torch.tensor(clean)[None], torch.tensor(direction)[None], torch.tensor([need]))[0].numpy()
    assert ((clean + found) >= -1e-9).all()
    assert ((clean + found) <= 1 + 1e-9).all()
    if need <= 0:
        assert np.abs(found).max() == 0
    elif need >= most - 1e-3:
        assert found @ direction == pytest.approx(min(need, most), abs=5e-3)
    else:
        assert found @ direction == pytest.approx(need, abs=1e-5)
        reference = minimize(
            lambda delta: delta @ delta,
            np.clip(2.0 * direction, -clean, 1.0 - clean),
            jac=lambda delta: 2.0 * delta,
            bounds=list(zip(-clean, 1.0 - clean, strict=True)),
            constraints={"type": "ineq", "fun": lambda delta: delta @ direction - need},
            method="SLSQP",
        )
        assert np.linalg.norm(found) <= np.linalg.norm(reference.x) + 1e-4


class RunsOutLate(TorchFunctionMode):
    """Memory runs out once: in a sample's ⟨noise, direction⟩, the last thing that a pass allocates room for."""

    refused = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__.strip("_") == "matmul" and not self.refused:
            self.refused = True
            raise torch.OutOfMemoryError("no room")
        return function(*args, **(kwargs or {}))


def test_memory_that_runs_out_late_counts_nothing_twice():
    classifier = make_small()
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    arguments = x, torch.tensor([0]), torch.tensor([1]), [Key(0, 0, Purpose.SEARCH)], 200, torch.ones(1, 64) / 8
    expected = classifier.towards(*arguments)

    with RunsOutLate() as memory:
        again = classifier.towards(*arguments)
    assert memory.refused
    assert torch.equal(again.votes, expected.votes)
    assert torch.allclose(again.moments, expected.moments, atol=1e-5)


def test_a_class_that_is_unlikely_at_the_clean_image_is_found_on_the_way():
    # The boundaries of classes 1 to 4, which are likely at first, are 1.6 away. That of 5, which is not, is 0.9 away.
    directions = torch.zeros(6, 64)
    directions[1:5, :4] = 2.0 * torch.eye(4)
    directions[5, :5] = torch.tensor([4.0, 4.0, 4.0, 4.0, 12.0])
    # In all pixels alike, so that the box is far away.
    directions = directions @ torch.from_numpy(hadamard(64)).float() / 8.0
    distances = torch.tensor([0.0, 1.6, 1.6, 1.6, 1.6, 0.9])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    with torch.no_grad():
        model[1].weight.copy_(directions)
        model[1].bias.copy_(-0.5 * directions.sum(dim=1) - distances * directions.norm(dim=1))
    classifier = SmoothedClassifier(model, sigma=0.25, num_classes=6, input_shape=(1, 8, 8))
    example = Example(0, torch.full((1, 8, 8), 0.5), 0)
    attack = Newton(samples=1500, rivals=3)
    state = attack.start([example], classifier)
    assert 5 not in state.rivals
    for _ in range(attack.iterations):
        attack.step(state, classifier)
        state.iteration += 1
    assert state.rivals[state.alive].tolist() == [5]
    assert state.boundary_distance[state.alive].tolist() == pytest.approx([0.9], rel=0.05)


def test_a_guess_is_no_success_of_the_search_and_the_last_try_goes_to_what_looked_adversarial():
    linear = make_linear()
    clean, beyond = linear.at(1.0), linear.at(-0.6)
    short, votes = linear.at(0.6), torch.tensor([900, 100])
    guess, sure = Candidate(short, 0.4, votes, confident=False), Candidate(beyond, 1.6, votes)
    finding = Finding(Example(0, clean, 1), [guess, sure], 1, 0, 0, 0, 0.0)
    assert finding.confident is sure
    assert Finding(Example(0, clean, 1), [guess], 1, 0, 0, 0, 0.0).confident is None
    tried: list[torch.Tensor] = []

    class Never(type(linear.classifier)):
        def keyed_votes(self, x, keys, samples, start=0):
            if keys[0].purpose == Purpose.VERIFICATION:
                tried.append(x[0])
            return torch.tensor([[samples // 2, samples - samples // 2]])

    linear.classifier.__class__ = Never
    assert Verifier(samples=1000).verify(finding, linear.classifier).image is None
    assert torch.allclose(tried[-1], beyond, atol=1e-5) or float((tried[-1] - clean).norm()) >= 1.6


@pytest.mark.parametrize("batch", [2, 5])
def test_an_examples_result_does_not_depend_on_the_batch(batch: int):
    alone = attack_at(make_linear(), DISTANCES, Newton(samples=600, steps=10), batch=1)
    together = attack_at(make_linear(), DISTANCES, Newton(samples=600, steps=10), batch=batch)
    for one, other in zip(alone, together, strict=True):
        assert one.forward_evaluations == other.forward_evaluations
        assert [c.distance for c in one.candidates] == pytest.approx([c.distance for c in other.candidates], rel=1e-3)


def test_runs_towards_further_classes_are_given_up():
    classifier, attack = make_small(sigma=0.25), Newton(samples=300, rivals=2, steps=10)
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(3))
    label = int(classifier.model(image[None]).argmax())
    state = attack.start([Example(0, image, label)], classifier)
    assert state.rivals.shape == (1, 2)
    assert label not in state.rivals
    alive = []
    for _ in range(attack.iterations):
        attack.step(state, classifier)
        state.iteration += 1
        alive.append(int(state.alive.sum()))
    assert alive[:2] == [2, 2]
    assert alive[-1] == 1
    assert alive == sorted(alive, reverse=True)
    left = int(state.alive[0].nonzero())
    assert state.boundary_distance[0, left] <= state.boundary_distance[0, 1 - left]
    assert int(state.backward) == sum(runs * attack.draws(step) for step, runs in enumerate(alive))
    assert int(state.forward) == int(state.backward) + attack.samples, "and those that rank the classes"
    most_forward, most_backward = attack.budget(classifier.num_classes)
    assert int(state.forward) < most_forward
    assert int(state.backward) < most_backward


@pytest.mark.parametrize("steps", [1, 2, 6, 11, 12])
def test_no_example_takes_more_than_its_most_evaluations(steps: int):
    # All the other classes are equally far away, so that no run is given up before it has to be.
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, bias=False))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[1:] = (
            4.0 * torch.linalg.qr(torch.randn(64, 4, generator=torch.Generator().manual_seed(0))).Q.T
        )
        model[1].weight[0] = -model[1].weight[1:].sum(dim=0)
    classifier = SmoothedClassifier(model, sigma=0.25, num_classes=5, input_shape=(1, 8, 8))
    image = (0.5 + 0.5 * model[1].weight[0] / model[1].weight[0].norm()).view(1, 8, 8).clamp(0, 1).detach()
    attack = Newton(samples=300, rivals=4, steps=steps)
    (finding,) = Search(attack, classifier).run([Example(0, image, 0)])
    most_forward, most_backward = attack.budget(classifier.num_classes)
    assert finding.forward_evaluations <= most_forward
    assert finding.backward_evaluations <= most_backward
    assert finding.backward_evaluations >= 4 * attack.draws(0)


def test_it_is_cheaper_and_no_further_than_the_papers_algorithm_on_a_curved_model():
    classifier, verifier = make_small(sigma=0.25), Verifier(samples=10_000)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = classifier.model(images).argmax(dim=1).tolist()
    examples = [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    totals, costs = [], []
    for attack in (Newton(), CertificationAware(sample_schedule="fixed")):
        found = sorted(Search(attack, classifier).run(examples), key=lambda finding: finding.example.index)
        totals.append([verifier.verify(finding, classifier).radius for finding in found])
        costs.append(sum(finding.forward_evaluations + finding.backward_evaluations for finding in found))
    assert costs[0] < costs[1] / 3
    both = [(newton, paper) for newton, paper in zip(*totals, strict=True) if paper is not None]
    assert both
    assert all(newton is not None and newton < 1.03 * paper for newton, paper in both)


def test_three_rivals_of_a_batch_that_examples_join_and_leave():
    """Examples at different steps, with different numbers of samples and of runs, each as if alone."""

    class FourClasses(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 6.0 * torch.stack([x[:, 0, row].mean(dim=1) for row in (0, 2, 4, 6)], dim=1)

    def classifier() -> SmoothedClassifier:
        return SmoothedClassifier(FourClasses(), sigma=0.25, num_classes=4, input_shape=(1, 8, 8))

    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    images[1, 0, 0, 0] = torch.nan  # never usable
    examples = [Example(i, image, int(classifier().model(image[None]).argmax())) for i, image in enumerate(images)]
    attack = Newton(samples=600, steps=10, rivals=3)
    alone = [next(iter(Search(attack, classifier()).run([example]))) for example in examples]
    together = sorted(Search(attack, classifier(), 3).run(examples), key=lambda finding: finding.example.index)
    assert alone[1].candidates == []
    assert sum(bool(finding.candidates) for finding in alone) == 4
    for one, other in zip(alone, together, strict=True):
        assert one.forward_evaluations == other.forward_evaluations
        assert one.lost_gradients == other.lost_gradients
        assert [c.distance for c in one.candidates] == pytest.approx([c.distance for c in other.candidates], rel=1e-3)


def test_a_model_without_gradient_goes_nowhere_and_says_so():
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, 1.0]).expand(len(x), 2) + 0.0 * x.sum()

    classifier = make_linear().classifier
    classifier.model = Constant()
    (finding,) = Search(Newton(samples=150, steps=4), classifier).run([Example(0, torch.full((1, 20, 20), 0.5), 1)])
    assert finding.candidates == []
    assert finding.lost_gradients == 4
