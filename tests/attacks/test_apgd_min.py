"""The minimised APGD: its loss, the order of its runs, and the radius where that is known."""

from __future__ import annotations

import pytest
import torch
from networks import make_small
from torch import Tensor, nn

from caa_cli.attacks.baselines.apgd_min import ApgdMin
from caa_cli.attacks.common.loop import Batch, Example, Search
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.logit_ratio import TargetedRatio
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.objective import CrossEntropy, OneOfTwo, Reversed

SHAPE = (1, 8, 8)


@pytest.mark.parametrize(("classes", "low"), [(2, None), (3, [2]), (4, [2, 3]), (7, [2, 3])])
def test_the_targeted_ratio_has_the_value_and_the_slopes_of_its_definition(classes: int, low: list[int] | None):
    z = torch.randn(6, classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(dim=1)
    labels, targets = torch.arange(6) % classes, (torch.arange(6) + 1) % classes
    z.requires_grad_(True)
    ordered = z.sort(dim=1, descending=True).values
    divisor = 1.0 if low is None else ordered[:, 0] - ordered[:, low].mean(dim=1)
    ratio = (z.gather(1, targets[:, None]) - z.gather(1, labels[:, None]))[:, 0] / divisor
    ratio.sum().backward()
    objective = TargetedRatio(targets)
    assert torch.allclose(objective.value(z, labels), ratio)
    log_slope, sign = objective.slopes(z.detach(), labels)
    # ∂J/∂z = p̄ ∂J/∂p̄
    assert torch.allclose(sign * (log_slope + z.detach()).exp(), z.grad)


def test_every_example_has_its_own_objective_however_the_batch_is_cut():
    x, labels = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
    targets, chosen = torch.tensor([1, 2, 0, 2]), torch.tensor([True, False, True, True])
    objective = OneOfTwo(CrossEntropy(), TargetedRatio(targets), chosen)

    def gradient(chunk: int) -> Tensor:
        return make_small(gradient_chunk=chunk).surrogate(x, labels, Key.direct(4, 0), 100, objective).gradient

    whole = gradient(1000)
    assert torch.allclose(gradient(100), whole, atol=1e-6)
    for row in range(4):
        alone = TargetedRatio(targets[row : row + 1]) if chosen[row] else CrossEntropy()
        keys = [Key.direct(4, 0)[row]]
        expected = make_small().surrogate(x[row : row + 1], labels[row : row + 1], keys, 100, alone).gradient
        assert torch.allclose(whole[row], expected[0], atol=1e-6)


@pytest.mark.parametrize("made", [Reversed, lambda objective: objective.on_draws(0.1)], ids=["reversed", "on draws"])
def test_what_is_made_of_an_objective_that_depends_on_the_example_does_too(made):
    z = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    labels, targets, rows = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 3]), slice(1, 3)
    objective = made(TargetedRatio(targets))
    whole, some = objective.slopes(z, labels), objective.of(rows).slopes(z[rows], labels[rows])
    for part, of_some in zip(whole, some, strict=True):
        assert torch.equal(part[rows], of_some)


def several(classes: int = 5) -> tuple[SmoothedClassifier, Tensor]:
    """A linear model of several classes without noise, and the nearest plane's distance of a grey image by class."""
    weight = torch.randn(classes, 64, generator=torch.Generator().manual_seed(4))
    layer = nn.Linear(64, classes).requires_grad_(False)
    layer.weight.copy_(weight)
    layer.bias.copy_(0.3 * torch.arange(classes).flip(0) - weight.sum(dim=1) / 2)
    model = nn.Sequential(nn.Flatten(), layer)
    classifier = SmoothedClassifier(model, sigma=1e-7, num_classes=classes, input_shape=SHAPE)
    ahead = 0.3 * torch.arange(1, classes)
    return classifier, ahead / (weight[1:] - weight[0]).norm(dim=1)


GREY = torch.full(SHAPE, 0.5)


def test_it_finds_the_nearest_of_several_planes():
    classifier, distances = several()
    attack = ApgdMin(steps=20, searches=10, samples=5, alpha=0.4)
    (finding,) = Search(attack, classifier).run([Example(0, GREY, 0)])
    assert finding.candidates[0].distance == pytest.approx(float(distances.min()), rel=0.01)


def test_a_failed_search_aims_at_every_target_in_turn_and_the_next_ball_is_twice_as_large():
    classifier, _ = several()
    attack = ApgdMin(steps=2, targets=3, radius=1e-4, searches=2, samples=5, alpha=0.4)
    seen: list[tuple[int, float]] = []

    def note(state: Batch) -> None:
        assert state.likely.tolist() == [[1, 2, 3]], "the classes by their logits"
        seen.append((int(state.run), float(state.epsilon)))

    (finding,) = Search(attack, classifier, 1, note).run([Example(0, GREY, 0)])
    assert [run for run, _ in seen[:-1]] == [0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3]
    assert [epsilon for _, epsilon in seen[6:8]] == pytest.approx([1e-4, 2e-4])
    assert finding.iterations == attack.iterations == 16


def test_the_bisection_begins_at_the_certified_radius():
    classifier, distances = several()
    attack = ApgdMin(steps=20, searches=3, radius=8 * float(distances.min()), samples=5, alpha=0.4)
    balls: list[float] = []
    certified = 0.8 * float(distances.min())
    search = Search(attack, classifier, 1, lambda state: balls.append(float(state.epsilon)))
    list(search.run([Example(0, GREY, 0, certified)]))
    first, second, third = dict.fromkeys(balls)
    assert second == pytest.approx((certified + first) / 2)
    assert third == pytest.approx((certified + second) / 2)
