"""SuperDeepFool's rule, held against one image at a time by autograd."""

from __future__ import annotations

import pytest
import torch
from networks import SmallNet
from prescribed import recording
from torch import Tensor

from caa_cli.attacks.baselines.sdf import Sdf
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.smoothing.classifier import SmoothedClassifier

BISECTIONS = 8


def differences(model: SmallNet, x: Tensor, label: int) -> tuple[Tensor, Tensor, list[int]]:
    """f_k = z_k − z_label of every other class k, their gradients, and the classes."""
    x = x.clone().requires_grad_(True)
    z = model(x[None])[0]
    others = [k for k in range(len(z)) if k != label]
    values = [z[k] - z[label] for k in others]
    gradients = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in values]
    return torch.stack(values).detach(), torch.stack(gradients), others


def deepfool(model: SmallNet, start: Tensor, label: int) -> Tensor:
    total, x = torch.zeros_like(start), start
    for _ in range(100):
        values, gradients, _ = differences(model, x, label)
        if values.max() > 0:
            return x
        lengths = gradients.flatten(1).norm(dim=1)
        nearest = int((values.abs() / lengths).argmin())
        total = total + (values[nearest].abs() / lengths[nearest] + 1e-4) * gradients[nearest] / lengths[nearest]
        x = (start + 1.02 * total).clamp(0, 1)
    raise AssertionError("DeepFool finds nothing")


def superdeepfool(model: SmallNet, clean: Tensor, label: int) -> tuple[list[Tensor], int]:
    """The adversarial points on the way, the result last, and how often one was projected."""
    x, projections, found = clean, 0, []
    while differences(model, x, label)[0].max() <= 0:
        crossed = deepfool(model, x, label)
        found.append(crossed)
        values, gradients, _ = differences(model, crossed, label)
        w = gradients[int(values.argmax())]
        w = w / w.norm()
        x = (x + ((crossed - clean) * w).sum() * w).clamp(0, 1)
        projections += 1
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        beyond = differences(model, torch.lerp(clean, x, middle), label)[0].max() > 0
        low, high = (low, middle) if beyond else (middle, high)
    return [*found, torch.lerp(clean, x, high)], projections


@pytest.mark.parametrize("batch", [1, 5])
def test_without_noise_it_finds_the_point_of_the_rule_written_out(batch: int):
    model = SmallNet(seed=1).requires_grad_(False)
    images = (1.4 * torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)) - 0.2).clamp(0, 1)
    labels = model(images).argmax(dim=1).tolist()
    examples = [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    classifier = SmoothedClassifier(model, sigma=1e-7, num_classes=3, input_shape=(1, 8, 8))
    # Five equal votes are confident at this level.
    attack = Sdf(samples=5, alpha=0.4, bisections=BISECTIONS)
    found = sorted(Search(attack, classifier, batch).run(examples), key=lambda finding: finding.example.index)
    for finding, image, label in zip(found, images, labels, strict=True):
        points, projections = superdeepfool(model, image, label)
        distances = sorted(float((point - image).norm()) for point in points)
        ours = [candidate.distance for candidate in finding.candidates]
        assert ours[0] == pytest.approx(distances[0], rel=1e-4)
        assert any(one == pytest.approx(float((points[-1] - image).norm()), rel=1e-4) for one in ours)
        assert finding.iterations > projections


def test_the_last_step_bisects_what_was_found_and_no_sooner():
    model = SmallNet(seed=1).requires_grad_(False)
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    label = int(model(image[None]).argmax())
    classifier = SmoothedClassifier(model, sigma=1e-7, num_classes=3, input_shape=(1, 8, 8))

    def forward(steps: int) -> tuple[int, bool]:
        attack = Sdf(samples=5, alpha=0.4, bisections=BISECTIONS, steps=steps)
        (finding,) = Search(attack, classifier).run([Example(0, image, label)])
        return finding.forward_evaluations, bool(finding.candidates)

    assert forward(1) == (5, False), "there is nothing to bisect"
    crossed = next(steps for steps in range(2, 20) if forward(steps)[1])
    assert forward(crossed) == (5 * (crossed + BISECTIONS), True)


def test_every_bisection_has_noise_of_its_own_that_no_step_has():
    model, steps = SmallNet(seed=1).requires_grad_(False), 10
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    classifier = recording(model, 3, sigma=1e-7)
    attack = Sdf(samples=5, alpha=0.4, bisections=BISECTIONS, steps=steps)
    list(Search(attack, classifier).run([Example(0, image, int(model(image[None]).argmax()))]))
    assert [draw.key.iteration for draw in classifier.draws] == list(range(steps, steps + BISECTIONS))
