"""What the baselines see of the smoothed classifier: its logits, and the gradients of what they follow."""

from __future__ import annotations

import math

import pytest
import torch
from networks import SmallNet, make_small
from torch import Tensor, nn

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import (
    ANY_CLASS,
    CrossEntropy,
    LogRatio,
    likeliest_rivals,
    logit_margin,
    odds_against,
)

KEYS = [Key(0, index, Purpose.SEARCH) for index in range(3)]
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2])
SAMPLES = 400


def smoothed_logits(classifier: SmoothedClassifier, x: Tensor, samples: int = SAMPLES) -> Tensor:
    """z with all of its graph, by the definition."""
    noise = torch.empty(len(x), samples, 1, 8, 8)
    classifier.noise.gaussian(noise, KEYS, 0, classifier.sigma)
    logits = classifier.model((x[:, None] + noise).flatten(0, 1)).view(len(x), samples, -1)
    return logits.softmax(dim=2).mean(dim=1).log()


def own(z: Tensor) -> Tensor:
    return z.gather(1, LABELS[:, None])[:, 0]


def rival(z: Tensor) -> Tensor:
    return z.scatter(1, LABELS[:, None], -math.inf).max(dim=1).values


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one.flatten(1), other.flatten(1)).min())


@pytest.mark.parametrize("chunk", [50, 300, 100_000])
def test_the_log_mean_is_that_of_all_samples_whatever_the_chunk(chunk: int):
    classifier = make_small(gradient_chunk=chunk)
    passed = classifier.surrogate(X, LABELS, KEYS, SAMPLES, LogRatio())
    assert torch.allclose(passed.log_mean, smoothed_logits(classifier, X), atol=1e-6)


def test_the_cross_entropy_points_where_its_gradient_does():
    classifier = make_small()
    x = X.clone().requires_grad_(True)
    (-own(smoothed_logits(classifier, x))).sum().backward()
    passed = classifier.surrogate(X, LABELS, KEYS, SAMPLES, CrossEntropy(), pilot=SAMPLES)
    assert cosine(passed.gradient, x.grad) > 1 - 1e-5


def test_the_cross_entropy_has_a_direction_where_its_gradient_is_nothing_in_float32():
    """Logits 200 apart: 1 − p is e⁻²⁰⁰, far below the smallest float."""

    class Certain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            lead = 200.0 + x.flatten(1).sum(dim=1, keepdim=True)
            return torch.cat([lead, torch.zeros_like(lead)], dim=1)

    classifier = SmoothedClassifier(Certain(), sigma=0.1, num_classes=2, input_shape=(1, 8, 8))
    passed = classifier.surrogate(X[:1], torch.tensor([0]), KEYS[:1], 50, CrossEntropy())
    assert float(passed.gradient.norm()) > 1
    assert float(passed.gradient.max()) < 0
    assert float(odds_against(passed.log_mean, torch.tensor([0]))) < -190


def test_towards_any_class_is_the_way_down_of_the_label_and_towards_a_rival_that_over_it():
    classifier, samples, rivals = make_small(), 100, torch.tensor([ANY_CLASS, ANY_CLASS, 1])
    x = X.clone().requires_grad_(True)
    z = smoothed_logits(classifier, x, samples)
    objective = torch.stack([(1.0 - own(z)[:2].exp()).log().sum(), z[2, 1] - z[2, 2]])
    objective.sum().backward()
    passed = classifier.towards(X, LABELS, rivals, KEYS, samples, torch.zeros(3, 64))
    assert float((passed.gradient - x.grad).norm() / x.grad.norm()) < 1e-5


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_the_ratio_has_the_value_and_the_gradient_of_its_definition(tolerance: float):
    classifier = make_small()
    x = X.clone().requires_grad_(True)
    z = smoothed_logits(classifier, x)
    ordered = z.sort(dim=1, descending=True).values
    ratio = (own(z) - rival(z) + tolerance) / (ordered[:, 0] - ordered[:, 2])
    ratio.sum().backward()
    objective = LogitRatio(tolerance)
    passed = classifier.surrogate(X, LABELS, KEYS, SAMPLES, objective, pilot=SAMPLES)
    assert torch.allclose(objective.value(passed.log_mean, LABELS), ratio.detach(), atol=1e-5)
    assert float((passed.gradient - x.grad).norm() / x.grad.norm()) < 1e-4


def test_where_the_first_classes_are_even_the_ratio_is_a_number():
    even = torch.full((1, 4), -1.4)
    assert LogitRatio().value(even, torch.tensor([0])).tolist() == [0.0]


def test_of_two_classes_the_ratio_is_the_margin():
    z = torch.tensor([[0.7, 0.3], [0.2, 0.8]]).log()
    labels = torch.tensor([0, 0])
    assert torch.equal(LogitRatio().value(z, labels), logit_margin(z, labels))
    assert torch.equal(logit_margin(z, labels), z[:, 0] - z[:, 1])


@pytest.mark.parametrize("chunk", [50, 300, 100_000])
def test_the_gradients_of_several_rivals_come_from_one_pass(chunk: int):
    classifier = make_small(gradient_chunk=chunk)
    rivals = torch.tensor([[1, 2], [0, 2], [0, 1]])
    passed = classifier.rival_gradients(X, LABELS, rivals, KEYS, SAMPLES)
    assert passed.gradient.shape == (3, 2, 1, 8, 8)
    assert torch.equal(passed.votes, classifier.keyed_votes(X, KEYS, SAMPLES))
    for place in range(2):
        x = X.clone().requires_grad_(True)
        z = smoothed_logits(classifier, x)
        (z.gather(1, rivals[:, place, None])[:, 0] - own(z)).sum().backward()
        assert cosine(passed.gradient[:, place], x.grad) > 0.999


def test_abstentions_have_no_say_in_the_log_mean():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = SmallNet()

        def forward(self, x: Tensor) -> Tensor:
            bad = (x.flatten(1).mean(dim=1) > x.flatten(1).mean())[:, None]
            return torch.where(bad, math.nan, self.inner(x))

    classifier = SmoothedClassifier(Half(), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    passed = classifier.surrogate(X, LABELS, KEYS, SAMPLES, CrossEntropy())
    share = passed.votes.sum(dim=1) / SAMPLES
    assert (share < 1).all()
    assert torch.allclose(passed.log_mean.exp().sum(dim=1), share, atol=1e-5)
    assert torch.isfinite(passed.gradient).all()


@pytest.mark.parametrize("classes", [2, 5, 10, 100])
def test_a_label_is_no_rival_of_its_own_among_impossible_classes(classes: int):
    """A network may rule classes out, with logits of −∞."""
    labels = torch.arange(classes)
    log_mean = torch.full((classes, classes), -torch.inf).scatter_(1, labels[:, None], 0.0)
    for count in range(1, min(classes, 12)):
        assert not (likeliest_rivals(log_mean, labels, count) == labels[:, None]).any()
