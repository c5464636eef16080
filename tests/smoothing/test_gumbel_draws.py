"""Objectives on the mean Gumbel–softmax draw in place of the logits, against autograd through the paper's formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from networks import SmallNet, make_small
from torch import Tensor, nn
from torch.nn import functional

from caa_cli.attacks.baselines.pgd import Pgd
from caa_cli.attacks.common.state import Example
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import CrossEntropy, GumbelGap, LogRatio, Objective, OneOfTwo

KEYS = [Key(0, index, Purpose.SEARCH) for index in range(3)]
X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2])
SAMPLES, TEMPERATURE = 300, 0.3


def mean_draw(classifier: SmoothedClassifier, x: Tensor) -> Tensor:
    """Eq. gumbel, averaged over the noise, with all of its graph: (3, 3)."""
    noise = torch.empty(len(x), SAMPLES, 1, 8, 8)
    classifier.noise.gaussian(noise, KEYS, 0, classifier.sigma)
    log_pi = classifier.model((x[:, None] + noise).flatten(0, 1)).view(len(x), SAMPLES, -1).log_softmax(dim=2)
    g = torch.empty_like(log_pi)
    classifier.noise.gumbel(g, KEYS, 0)
    return ((log_pi + g) / TEMPERATURE).softmax(dim=2).mean(dim=1)


def entropy(y: Tensor) -> Tensor:
    return functional.cross_entropy(y, LABELS, reduction="none")


def ratio(y: Tensor) -> Tensor:
    """Minus the difference-of-logits ratio of Croce and Hein."""
    z, _ = y.sort(dim=1, descending=True)
    own = y.gather(1, LABELS[:, None])[:, 0]
    other = torch.where(y.argmax(dim=1) == LABELS, z[:, 1], z[:, 0])
    return (own - other) / (z[:, 0] - z[:, 2])


def gap(y: Tensor) -> Tensor:
    own = y.gather(1, LABELS[:, None])[:, 0]
    return own - y.scatter(1, LABELS[:, None], -1.0).max(dim=1).values


def autograd(classifier: SmoothedClassifier, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of the loss, one loss an example, in (3, dimensions)."""
    x = X.clone().requires_grad_(True)
    loss(mean_draw(classifier, x)).sum().backward()
    assert x.grad is not None
    return x.grad.flatten(1)


def passed(classifier: SmoothedClassifier, objective: Objective) -> Tensor:
    return classifier.surrogate(X, LABELS, KEYS, SAMPLES, objective, pilot=SAMPLES).gradient.flatten(1)


@pytest.mark.parametrize(
    ("objective", "loss"),
    [(LogRatio(), gap), (LogitRatio(), ratio), (CrossEntropy(), entropy)],
    ids=["margin", "ratio", "cross-entropy"],
)
def test_the_gradient_is_that_of_the_loss_of_the_mean_draw(objective: Objective, loss: Callable[[Tensor], Tensor]):
    classifier = make_small(gradient_chunk=64)
    found, expected = passed(classifier, objective.on_draws(TEMPERATURE)), autograd(classifier, loss)
    if isinstance(objective, CrossEntropy):  # attacks use its direction alone
        found, expected = functional.normalize(found), functional.normalize(expected)
    assert (expected.norm(dim=1) > 0).sum() >= 2  # the ratio of three classes is constant where the label is the last
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.norm(dim=1).max()))


def test_the_margin_of_draws_is_the_papers_objective():
    classifier = make_small()
    assert torch.equal(passed(classifier, LogRatio().on_draws(0.3)), passed(classifier, GumbelGap(temperature=0.3)))


def test_each_example_has_its_own_of_two_objectives():
    classifier, chosen = make_small(gradient_chunk=64), torch.tensor([False, True, False])
    both = passed(classifier, OneOfTwo(CrossEntropy(), LogitRatio(), chosen).on_draws(TEMPERATURE))
    first, second = (passed(classifier, one.on_draws(TEMPERATURE)) for one in (CrossEntropy(), LogitRatio()))
    assert torch.allclose(both, torch.where(chosen[:, None], second, first), rtol=1e-5)


def test_the_gradients_of_several_rivals_are_those_of_the_draws():
    classifier = make_small(gradient_chunk=64)
    rivals = torch.stack([(LABELS + 1) % 3, (LABELS + 2) % 3], dim=1)
    found = classifier.rival_gradients(X, LABELS, rivals, KEYS, SAMPLES, draws_at=TEMPERATURE).gradient.flatten(2)
    for number in (0, 1):
        rival = rivals[:, number, None]
        expected = autograd(classifier, lambda y, k=rival: (y.gather(1, k) - y.gather(1, LABELS[:, None]))[:, 0])
        assert float((found[:, number] - expected).norm() / expected.norm()) < 1e-4


class Certain(nn.Module):
    """The small network, a thousand times as sure of class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmallNet()

    def forward(self, x: Tensor) -> Tensor:
        certain: Tensor = 10.0 * self.inner(x) + torch.tensor([1000.0, 0.0, 0.0])
        return certain


@pytest.mark.parametrize(("temperature", "moves"), [(None, True), (0.01, False)])
def test_where_the_model_is_certain_draws_have_no_gradient(temperature: float | None, moves: bool):
    classifier = SmoothedClassifier(Certain(), sigma=0.5, num_classes=3, input_shape=(1, 8, 8))
    attack = Pgd(samples=100, gumbel_temperature=temperature)
    state = attack.start([Example(0, X[0], 0, 1.0)], classifier)
    attack.step(state, classifier)
    assert bool((state.x[0] != X[0]).any()) == moves
    assert state.lost_gradients.tolist() == [0 if moves else 1]
