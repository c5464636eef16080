"""PDGD's rule, held against one image at a time by autograd and PyTorch's own Adam."""

from __future__ import annotations

import math

import pytest
import torch
from networks import SmallNet
from torch import Tensor
from torch.nn.functional import softplus

from caa_cli.attacks.baselines.pdgd import Pdgd
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.smoothing.classifier import SmoothedClassifier

STEPS = 40


def margin(model: SmallNet, x: Tensor, label: int) -> Tensor:
    z = model(x[None])[0]
    return z[label] - torch.cat([z[:label], z[label + 1 :]]).max()


def written_out(model: SmallNet, clean: Tensor, label: int, least: float) -> list[Tensor]:
    """x after every step, with the authors' constants for 500 steps, but for `least`: their 1e-6."""
    most = -math.log(least)
    change = torch.zeros_like(clean, requires_grad=True)
    adam, points = torch.optim.Adam([change], lr=0.1), []
    dual = torch.tensor([0.0, -math.log(0.01)])
    weights = dual.softmax(0)
    for step in range(STEPS):
        adam.zero_grad()
        m = margin(model, clean + change, label)
        (weights[0] * change.norm() + weights[1] * softplus(m)).backward()
        adam.param_groups[0]["lr"] = 0.1 * 0.01 ** (step / STEPS)
        adam.step()
        with torch.no_grad():
            change.copy_((clean + change).clamp(0, 1) - clean)
        climb = 0.1 + (0.01 - 0.1) * step / (STEPS - 1)
        dual[1] = (dual[1] + climb * m.detach().sign()).clamp(-most, most)
        weights = 0.9 * weights + 0.1 * dual.softmax(0)
        points.append((clean + change).detach().clone())
    return points


@pytest.mark.parametrize("least", [1e-6, 0.1])
def test_without_noise_every_point_is_that_of_the_rule_written_out(least: float):
    model = SmallNet().requires_grad_(False)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    labels = model(images).argmax(dim=1).tolist()
    examples = [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    classifier = SmoothedClassifier(model, sigma=1e-7, num_classes=3, input_shape=(1, 8, 8))
    # Five equal votes are confident at this level.
    attack = Pdgd(steps=STEPS, dual_lr=0.1, dual_min_ratio=least, samples=5, alpha=0.4)
    points: list[Tensor] = []
    findings = list(Search(attack, classifier, 3, lambda state: points.append(state.x.clone())).run(examples))
    crossed = 0
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        expected = written_out(model, image, label, least)
        for ours, theirs in zip(points, expected, strict=True):
            assert torch.allclose(ours[row], theirs, atol=2e-3)
        crossed += sum(float(margin(model, x, label)) < 0 for x in expected)
    assert 0 < crossed < 3 * STEPS, "the dual variable went either way"
    assert all(finding.candidates for finding in findings)


@pytest.mark.parametrize(("steps", "climb"), [(100, 0.5), (500, 0.1), (2000, 0.1)])
def test_in_a_short_run_the_dual_variable_climbs_faster(steps: int, climb: float):
    assert Pdgd(steps=steps).first_climb == climb
    assert Pdgd(steps=steps, dual_lr=0.2).first_climb == 0.2
