"""SuperDeepFool's rule, held against one image at a time by autograd."""

from __future__ import annotations

import pytest
import torch
from networks import SmallNet
from prescribed import recording
from torch import Tensor, nn

from caa_cli.attacks.baselines.sdf import Sdf
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.smoothing.classifier import SmoothedClassifier

BISECTIONS = 8


def differences(model: nn.Module, x: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """f_k = z_k − z_label of every other class k, and their gradients."""
    x = x.clone().requires_grad_(True)
    z = model(x[None])[0]
    values = [z[k] - z[label] for k in range(len(z)) if k != label]
    gradients = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in values]
    return torch.stack(values).detach(), torch.stack(gradients)


def is_beyond(model: nn.Module, x: Tensor, label: int) -> bool:
    return bool(differences(model, x, label)[0].max() > 0)


def deepfool(model: nn.Module, start: Tensor, label: int) -> list[Tensor]:
    """The points after `start`; the last one is the first that is adversarial."""
    total, points = torch.zeros_like(start), [start]
    while not is_beyond(model, points[-1], label):
        values, gradients = differences(model, points[-1], label)
        lengths = gradients.flatten(1).norm(dim=1)
        nearest = int((values.abs() / lengths).argmin())
        total = total + (values[nearest].abs() / lengths[nearest] + 1e-4) * gradients[nearest] / lengths[nearest]
        points.append((start + 1.02 * total).clamp(0, 1))
    return points[1:]


def superdeepfool(model: nn.Module, clean: Tensor, label: int) -> list[Tensor]:
    """Its points in their order; the ray to the last one is bisected."""
    points = [clean]
    while not is_beyond(model, points[-1], label):
        x = points[-1]
        points += deepfool(model, x, label)
        values, gradients = differences(model, points[-1], label)
        w = gradients[int(values.argmax())]
        w = w / w.norm()
        points.append((x + ((points[-1] - clean) * w).sum() * w).clamp(0, 1))
    return points


def bisection(model: nn.Module, clean: Tensor, end: Tensor, label: int) -> list[Tensor]:
    low, high, points = 0.0, 1.0, []
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        points.append(torch.lerp(clean, end, middle))
        low, high = (low, middle) if is_beyond(model, points[-1], label) else (middle, high)
    return points


def nearest_of(model: nn.Module, points: list[Tensor], clean: Tensor, label: int) -> list[float]:
    """The distances of the adversarial ones, ascending."""
    return sorted(float((x - clean).norm()) for x in points if is_beyond(model, x, label))


def curved() -> nn.Module:
    """A network of four pixels. Its boundaries are curved, so that from points projected out of the box, and brought
    back, steps go another way."""
    with torch.random.fork_rng():
        torch.manual_seed(39)
        first, last = nn.Linear(4, 16), nn.Linear(16, 3)
    first.weight.data *= 3.0
    return nn.Sequential(nn.Flatten(), first, nn.Tanh(), last).requires_grad_(False)


def examples_of(model: nn.Module, images: Tensor) -> list[Example]:
    labels = model(images).argmax(dim=1).tolist()
    return [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]


def without_noise(model: nn.Module, images: Tensor) -> SmoothedClassifier:
    return SmoothedClassifier(model, sigma=1e-7, num_classes=3, input_shape=tuple(images.shape[1:]))


SMOOTH = SmallNet(seed=1).requires_grad_(False)
IMAGES = (1.4 * torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)) - 0.2).clamp(0, 1)
CURVED = curved()
SMALL_IMAGES = (3 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0)) - 1).clamp(0, 1)
CASES = [(SMOOTH, IMAGES), (CURVED, SMALL_IMAGES)]
# Five equal votes are confident at this level.
SETTINGS = {"samples": 5, "alpha": 0.4, "bisections": BISECTIONS}


@pytest.mark.parametrize(("model", "images"), CASES, ids=["smooth", "curved"])
@pytest.mark.parametrize("batch", [1, 6])
def test_without_noise_it_finds_the_point_of_the_rule_written_out(model: nn.Module, images: Tensor, batch: int):
    for finding in Search(Sdf(**SETTINGS), without_noise(model, images), batch).run(examples_of(model, images)):
        clean, label = finding.example.image, finding.example.label
        points = superdeepfool(model, clean, label)
        nearest = nearest_of(model, points + bisection(model, clean, points[-1], label), clean, label)
        ours = [candidate.distance for candidate in finding.candidates]
        assert ours == pytest.approx(nearest[: len(ours)], rel=1e-4)
        assert finding.iterations == len(points)
        assert finding.forward_evaluations == 5 * (len(points) + BISECTIONS)


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


def test_what_the_last_step_bisects_is_the_nearest_point_not_the_last():
    example = examples_of(CURVED, SMALL_IMAGES)[0]
    clean, label = example.image, example.label
    points = superdeepfool(CURVED, clean, label)
    beyond = [is_beyond(CURVED, x, label) for x in points]
    steps = next(n for n in range(1, len(points)) if beyond[n - 1] and not beyond[n]) + 1
    (found,) = Search(Sdf(**SETTINGS, steps=steps), without_noise(CURVED, SMALL_IMAGES)).run([example])
    tried = points[:steps] + bisection(CURVED, clean, points[steps - 2], label)
    nearest = nearest_of(CURVED, tried, clean, label)
    assert nearest[0] < nearest_of(CURVED, points[:steps], clean, label)[0]
    assert found.candidates[0].distance == pytest.approx(nearest[0], rel=1e-4)


def test_every_bisection_has_noise_of_its_own_that_no_step_has():
    model, steps = SmallNet(seed=1).requires_grad_(False), 10
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    classifier = recording(model, 3, sigma=1e-7)
    attack = Sdf(samples=5, alpha=0.4, bisections=BISECTIONS, steps=steps)
    list(Search(attack, classifier).run([Example(0, image, int(model(image[None]).argmax()))]))
    assert [draw.key.iteration for draw in classifier.draws] == list(range(steps, steps + BISECTIONS))
