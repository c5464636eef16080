"""--gradient: what a search may see of its target, on models whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from networks import make_linear, make_sectors, make_small
from torch import nn

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.attacks.common.starting_points import cross
from caa_cli.attacks.newton.attack import Newton
from caa_cli.attacks.newton.boundary_walk import BoundaryWalk
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import CrossEntropy, GumbelGap, LogRatio
from caa_cli.smoothing.stein import SteinEstimator
from caa_cli.smoothing.wiener import wiener_filter
from caa_cli.verification.verifier import Verifier

DISTANCES = (0.9, 1.5)


class NoBackward(torch.autograd.Function):
    """The identity, with a backward pass that must not be."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("a backward pass through the target")


class InPlace(nn.Module):
    """A model that overwrites its input on the way, which changes nothing of what it gives back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.model(x)
        x.zero_()
        return logits


class Closed(nn.Module):
    """A model that can be asked and not differentiated."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return NoBackward.apply(self.model(x))


def votes_only(linear, **settings: int) -> SmoothedClassifier:
    target = linear.classifier
    return SmoothedClassifier(
        Closed(target.model),
        gradients=SteinEstimator(),
        sigma=target.sigma,
        num_classes=target.num_classes,
        input_shape=target.input_shape,
        **{"votes_chunk": target.votes_chunk, **settings},
    )


def keys(count: int, iteration: int = 0) -> list[Key]:
    return [Key(0, index, Purpose.SEARCH, iteration) for index in range(count)]


def examples_of(linear) -> list[Example]:
    """With images of the other class to begin with, none of them straight across the boundary."""
    generator = torch.Generator().manual_seed(7)
    found = []
    for index, distance in enumerate(DISTANCES):
        others = torch.stack([linear.at(-1.5) + 0.1 * torch.randn(1, 20, 20, generator=generator) for _ in range(3)])
        found.append(Example(index, linear.at(distance), 1, 0.0, others))
    return found


def attacks(steps: int) -> list[Attack]:
    return [BoundaryWalk(samples=200, steps=steps), CertificationAware(samples=300, iterations=steps)]


def test_steins_gradient_lies_within_the_angle_that_its_noise_foretells():
    """On the boundary of a linear model ∇(p_1 − p_0) = 2φ(0)/σ along w, and the noise has the length √(d/n)/σ."""
    linear, samples = make_linear(votes_chunk=2048), 4000
    classifier = votes_only(linear)
    x, labels, rivals = linear.at(0.0)[None], torch.tensor([0]), torch.tensor([1])
    along = (linear.weight / linear.weight.norm())[None]
    passed = classifier.towards(x, labels, rivals, keys(1), samples, along)
    gradient = passed.gradient.flatten()
    signal = 4 / (math.sqrt(2 * math.pi) * classifier.sigma)  # of log p_1 − log p_0 at 1/2 each
    noise = math.sqrt(400 * 4 / samples) / classifier.sigma
    assert passed.variance is not None
    assert float(passed.variance) == pytest.approx(noise**2 / 400, rel=0.01)
    assert float(gradient.norm()) == pytest.approx(math.hypot(signal, noise), rel=0.1)
    cosine = float(torch.cosine_similarity(gradient, linear.weight, dim=0))
    assert cosine == pytest.approx(signal / math.hypot(signal, noise), abs=0.03)
    assert float(passed.moments[0, 1] - passed.moments[0, 0]) / classifier.sigma**2 == pytest.approx(
        2 / (math.sqrt(2 * math.pi) * classifier.sigma), rel=0.1
    )
    assert int(passed.forward_evaluations) == samples


def test_the_variance_that_is_reported_is_that_of_the_gradients_pixels():
    """Beside the boundary, where ∂J/∂p has a mean over the votes. Across w there is nothing but noise."""
    linear = make_linear(votes_chunk=2048)
    x, labels, rivals = linear.at(0.4)[None], torch.tensor([1]), torch.tensor([[0]])
    passed = votes_only(linear).rival_gradients(x, labels, rivals, keys(1), 4000, draws_at=0.01)
    gradient, normal = passed.gradient.flatten(), linear.weight / linear.weight.norm()
    noise = gradient - (gradient @ normal) * normal
    assert float(passed.variance) == pytest.approx(float(noise.square().sum() / 399), rel=0.25)


@pytest.mark.parametrize("objective", [LogRatio(), GumbelGap(), CrossEntropy(), LogitRatio()])
def test_every_objective_has_the_gradient_of_its_value_at_the_vote_shares(objective):
    """Of a linear model: against w where the label's side is left, whatever the objective."""
    linear = make_linear(votes_chunk=2048)
    passed = votes_only(linear).surrogate(linear.at(0.2)[None], torch.tensor([1]), keys(1), 20_000, objective)
    sign = -1.0 if isinstance(objective, CrossEntropy) else 1.0
    assert float(torch.cosine_similarity(sign * passed.gradient.flatten(), linear.weight, dim=0)) > 0.85


@pytest.mark.parametrize("chunk", [64, 100, 1000])
def test_neither_chunk_nor_batch_changes_the_gradient_of_votes(chunk: int):
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels, rivals = torch.tensor([0, 1, 2]), torch.tensor([[1, 2], [2, 0], [0, 1]])
    whole = make_small(votes_chunk=10_000, gradients=SteinEstimator()).rival_gradients(
        x, labels, rivals, keys(3), 300
    )
    cut = make_small(votes_chunk=chunk, gradients=SteinEstimator()).rival_gradients(x, labels, rivals, keys(3), 300)
    assert torch.equal(whole.votes, cut.votes)
    assert torch.allclose(whole.gradient, cut.gradient, atol=1e-4)
    alone = make_small(gradients=SteinEstimator()).rival_gradients(
        x[1:2], labels[1:2], rivals[1:2], keys(3)[1:2], 300
    )
    assert torch.allclose(whole.gradient[1:2], alone.gradient, atol=1e-4)


@pytest.mark.parametrize("gradients", [SteinEstimator, lambda: SurrogateModel(make_small().model)])
def test_a_target_may_overwrite_its_input_where_it_is_not_differentiated(gradients):
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels, rivals, along = torch.tensor([0, 1]), torch.tensor([1, 2]), torch.full((2, 64), 1 / 8)
    target, careless = make_small(gradients=gradients()), make_small(gradients=gradients())
    careless.model = InPlace(careless.model)
    one, other = (each.towards(x, labels, rivals, keys(2), 300, along) for each in (target, careless))
    assert one.moments.any()
    for name in ("votes", "gradient", "moments"):
        assert torch.equal(getattr(other, name), getattr(one, name)), name


def test_images_in_float64_have_a_gradient_by_votes_as_well():
    linear = make_linear(votes_chunk=2048)
    x, labels = linear.at(0.2)[None], torch.tensor([1])
    classifier = votes_only(linear)
    assert torch.equal(classifier.gradient(x.double(), labels, 200), classifier.gradient(x, labels, 200))


def test_the_images_beside_it_leave_no_trace_in_a_gradient_by_votes():
    """Not in the last bit: where an image has a pass of its own, its sums are added up in one order of classes."""
    sectors = make_sectors(votes_chunk=300, gradients=SteinEstimator())
    # All votes of the first image are for class 2, so its sum is there before those of classes 0 and 1.
    x, labels = torch.stack([sectors.at(3.0, 240), sectors.at(0.1, 30)]), torch.tensor([2, 0])
    beside = sectors.classifier.surrogate(x, labels, keys(2), 300, LogRatio())
    alone = sectors.classifier.surrogate(x[1:], labels[1:], keys(2)[1:], 300, LogRatio())
    assert beside.votes[0].tolist() == [0, 0, 300]
    assert torch.equal(beside.gradient[1], alone.gradient[0])


def test_where_all_votes_agree_there_is_no_gradient():
    linear = make_linear()
    passed = votes_only(linear).surrogate(linear.at(3.0)[None], torch.tensor([1]), keys(1), 500, LogRatio())
    assert not passed.gradient.any()
    assert passed.votes.tolist() == [[0, 500]]


def test_classes_without_votes_count_as_half_a_vote():
    passed = votes_only(make_linear()).surrogate(
        make_linear().at(3.0)[None], torch.tensor([1]), keys(1), 500, LogRatio()
    )
    assert passed.log_mean.tolist() == [pytest.approx([math.log(0.5 / 500), 0.0])]


class AbstainsAbove(nn.Module):
    """The classes of a linear model by the first half of the pixels; no class where the last one is above grey."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lead = x.flatten(1)[:, :32].sum(dim=1, keepdim=True) - 16
        logits = torch.cat([torch.zeros_like(lead), lead], dim=1)
        return torch.where(x[:, :, -1:, -1].flatten(1) > 0.5, torch.nan, logits)


def test_a_sample_that_abstains_has_no_say_in_a_gradient_from_votes():
    """Here whether a sample votes depends on a pixel that has no part in how it does."""
    samples, sigma = 4000, 0.5
    classifier = SmoothedClassifier(
        AbstainsAbove(), sigma=sigma, num_classes=2, input_shape=(1, 8, 8), gradients=SteinEstimator()
    )
    x, labels, rivals = torch.full((1, 1, 8, 8), 0.5), torch.tensor([0]), torch.tensor([1])
    passed = classifier.towards(x, labels, rivals, keys(1), samples, torch.zeros(1, 64))
    cast = int(passed.votes.sum())
    assert cast == pytest.approx(samples / 2, rel=0.1)
    gradient = passed.gradient.flatten()
    # Of log p_1 − log p_0 with p_1 = p_0 = 1/4: 4 ∂p_1, and ∂p_1 = φ(0)/(2σ√32) along each of these pixels.
    slope = 4 / (2 * math.sqrt(2 * math.pi) * sigma * math.sqrt(32))
    noise = math.sqrt(8 / samples) / sigma  # of every pixel, as the weights are 4 and −4, each for a quarter
    assert float(gradient[:32].mean()) == pytest.approx(2 * slope, abs=3 * noise / math.sqrt(32))
    assert abs(float(gradient[-1])) < 3 * noise


def test_a_gradient_that_is_followed_at_once_is_filtered_and_one_to_be_averaged_is_not():
    linear = make_linear(votes_chunk=2048)
    classifier, x, labels = votes_only(linear), linear.at(0.2)[None], torch.tensor([1])
    raw = classifier.towards(x, labels, 1 - labels, keys(1), 500, torch.zeros(1, 400))
    followed = classifier.surrogate(x, labels, keys(1), 500, LogRatio())
    assert raw.variance is not None
    filtered = wiener_filter(-raw.gradient.flatten(1), raw.variance, classifier.input_shape)
    assert torch.allclose(followed.gradient.flatten(1), filtered, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(filtered, -raw.gradient.flatten(1), rtol=0.1)


def test_the_filter_treats_rows_as_columns_also_of_an_image_that_is_not_square():
    gradient = torch.randn(1, 2, 24, 6, generator=torch.Generator().manual_seed(0)).cumsum(dim=2)
    upright = wiener_filter(gradient.flatten(1), torch.ones(1), (2, 24, 6)).view(2, 24, 6)
    lying = wiener_filter(gradient.mT.flatten(1), torch.ones(1), (2, 6, 24)).view(2, 6, 24)
    assert torch.allclose(upright, lying.mT, atol=1e-5)


def test_the_filter_leaves_a_clean_gradient_as_it_is_and_takes_noise_from_a_smooth_one():
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(2, 3 * 8 * 6, generator=generator)
    assert torch.allclose(wiener_filter(gradient, torch.zeros(2), (3, 8, 6)), gradient, atol=1e-5)
    rows = torch.linspace(0, math.pi, 16)
    smooth = (rows.cos()[:, None] + rows.sin()).flatten()[None]
    noise = torch.randn(1, 256, generator=generator)
    filtered = wiener_filter(smooth + noise, torch.ones(1), (1, 16, 16))
    before = torch.cosine_similarity(smooth + noise, smooth)
    assert float(torch.cosine_similarity(filtered, smooth)) > max(0.9, float(before) + 0.2)


def test_the_filter_costs_a_white_direction_little():
    signal = torch.randn(1, 400, generator=torch.Generator().manual_seed(2))
    noise = torch.randn(1, 400, generator=torch.Generator().manual_seed(3))
    raw = torch.cosine_similarity(signal + noise, signal)
    filtered = torch.cosine_similarity(wiener_filter(signal + noise, torch.ones(1), (1, 20, 20)), signal)
    assert float(filtered) > 0.9 * float(raw)


def test_crossings_lie_on_the_boundary_nearest_first():
    linear = make_linear()
    examples = examples_of(linear)
    found = cross([*examples, Example(9, linear.at(1.0), 1)], linear.classifier, 2, 0)
    assert found.exists.tolist() == [[True, False], [True, False], [False, False]]  # one rival, so one crossing
    assert found.evaluations.tolist() == [3 * 8 * 64, 3 * 8 * 64, 0]
    for row in range(2):
        assert abs(linear.distance(found.point[row, 0])) < 0.15
        assert int(found.rival[row, 0]) == 0


def test_the_rival_is_the_class_at_the_crossing_not_the_one_at_the_end_of_the_segment():
    """From the sector of class 0 into that of class 2, through that of class 1."""
    sectors = make_sectors()
    example = Example(0, sectors.at(1.0, 30), 0, 0.0, sectors.at(1.0, 190)[None])
    found = cross([example], sectors.classifier, 1, 0)
    assert int(found.votes[0].argmax()) == 2
    assert int(found.rival[0, 0]) == 1


@pytest.mark.parametrize(
    ("attack", "within"),
    [
        (BoundaryWalk(samples=1500), 1.06),
        (CertificationAware(samples=3000, sample_schedule="fixed", patience=20), 1.25),
    ],
    ids=["caa-newton", "caa"],
)
def test_by_votes_alone_the_radius_is_near_the_distance(attack, within):
    """The weights are white, so the filter is of no help: only the average over the looks is."""
    linear = make_linear(votes_chunk=2048)
    found = Search(attack, votes_only(linear), 2).run(examples_of(linear))
    verifier = Verifier(samples=40_000, probe_samples=4000)
    for finding in found:
        distance = DISTANCES[finding.example.index]
        proved = verifier.verify(finding, linear.classifier)
        assert proved.radius is not None
        assert 0.995 * distance <= proved.radius <= within * distance
        assert finding.backward_evaluations == 0
        assert finding.forward_evaluations > 0


@pytest.mark.parametrize("attack", attacks(8))
def test_neither_batch_nor_chunk_changes_what_votes_find(attack):
    linear = make_linear()
    alone = [f for e in examples_of(linear) for f in Search(attack, votes_only(linear, votes_chunk=100)).run([e])]
    together = sorted(Search(attack, votes_only(linear), 2).run(examples_of(linear)), key=lambda f: f.example.index)
    for one, other in zip(alone, together, strict=True):
        assert one.forward_evaluations == other.forward_evaluations
        assert [c.distance for c in one.candidates] == pytest.approx([c.distance for c in other.candidates], rel=1e-3)


@pytest.mark.parametrize("attack", attacks(4))
def test_without_an_image_to_begin_with_nothing_is_found_and_said_so(attack):
    linear = make_linear()
    (finding,) = Search(attack, votes_only(linear)).run([Example(0, linear.at(3.0), 1)])
    assert finding.candidates == []
    assert finding.iterations == 1, "there is nothing to go on with"


def test_the_image_to_begin_with_is_there_whatever_comes_of_the_walk():
    linear = make_linear()
    example = examples_of(linear)[0]
    (finding,) = Search(BoundaryWalk(samples=50, steps=1), votes_only(linear)).run([example])
    assert finding.confident is not None
    assert Verifier(samples=4000).verify(finding, linear.classifier).radius is not None


@pytest.mark.parametrize(
    "attack",
    [Newton(samples=600, steps=6), CertificationAware(samples=600, iterations=12)],
    ids=["caa-newton", "caa"],
)
def test_a_surrogate_that_is_the_target_gives_what_the_white_box_does(attack):
    white = make_small(sigma=0.25)
    transfer = make_small(sigma=0.25, gradients=SurrogateModel(make_small().model))
    transfer.model = Closed(transfer.model)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = white.model(images).argmax(dim=1).tolist()
    examples = [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    for one, other in zip(Search(attack, white).run(examples), Search(attack, transfer).run(examples), strict=True):
        assert [c.distance for c in other.candidates] == pytest.approx([c.distance for c in one.candidates], rel=1e-4)
        assert other.backward_evaluations == one.backward_evaluations
        assert other.forward_evaluations == one.forward_evaluations + one.backward_evaluations


def test_a_surrogate_that_was_trained_on_is_in_evaluation_mode_again():
    surrogate = nn.Sequential(nn.Dropout(0.5), make_small().model)
    classifier = make_small(gradients=SurrogateModel(surrogate))
    x, labels = torch.full((1, 1, 8, 8), 0.5), torch.tensor([0])
    before = classifier.gradient(x, labels, 100)
    surrogate.train()
    assert torch.equal(classifier.gradient(x, labels, 100), before)


def test_votes_are_the_targets_and_gradients_the_surrogates():
    other = make_linear(seed=1)
    target = make_linear(seed=0, gradients=SurrogateModel(other.classifier.model))
    classifier = target.classifier
    x, label = target.at(0.3)[None], torch.tensor([1])
    passed = classifier.surrogate(x, label, keys(1), 500, LogRatio())
    assert torch.equal(passed.votes, make_linear(seed=0).classifier.keyed_votes(x, keys(1), 500))
    assert float(torch.cosine_similarity(passed.gradient.flatten(), other.weight, dim=0)) > 0.99
    assert int(passed.forward_evaluations) == 1000
    # The smoothed logits are the target's shares, the surrogate weighing as one vote.
    assert torch.allclose(passed.log_mean.exp(), passed.votes / 500, atol=1 / 400)
