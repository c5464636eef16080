"""Without noise PDGD, SuperDeepFool and the minimised APGD find radii as small as adversarial-library's.

`pip install --no-deps adv-lib tqdm` is enough: visdom, which it names too, draws its live plots alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from types import ModuleType

import pytest
import torch
from support import demo_images
from torch import Tensor, nn

from caa_cli.attacks.baselines.apgd_min import ApgdMin
from caa_cli.attacks.baselines.baseline import Baseline
from caa_cli.attacks.baselines.pdgd import Pdgd
from caa_cli.attacks.baselines.sdf import Sdf
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.smoothing.classifier import SmoothedClassifier

sys.modules.setdefault("visdom", ModuleType("visdom"))
attacks = pytest.importorskip("adv_lib.attacks", reason="adversarial-library is not installed (pip: adv-lib)")

# Noise far below a pixel's last bit, and five votes for the same class are confident at this level.
SIGMA, SAMPLES, ALPHA = 1e-7, 5, 0.4


@pytest.fixture(scope="module")
def plain() -> tuple[nn.Module, Tensor, Tensor]:
    weights = read_weights(DEMO_CHECKPOINT)
    assert weights.card is not None
    model = build_model(weights, weights.card).eval().requires_grad_(False)
    images, labels = demo_images()
    x, y = torch.from_numpy(images[:8]).float()[:, None] / 255, torch.from_numpy(labels[:8]).long()
    right = model(x).argmax(dim=1) == y
    return model, x[right], y[right]


def minimal_apgd(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    from adv_lib.attacks.auto_pgd import minimal_apgd as minimal

    torch.manual_seed(0)
    return minimal(
        model, images, labels, norm=2, max_eps=4.0, targeted_version=True, n_iter=20, binary_search_steps=9
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "within"),
    [
        (Pdgd(steps=300, dual_lr=0.1), lambda *given: attacks.pdgd(*given, num_steps=300), 0.02),
        (Sdf(), attacks.sdf, 0.02),
        (ApgdMin(steps=20, radius=4.0, searches=9), minimal_apgd, 0.05),
    ],
    ids=["pdgd", "sdf", "apgd-min"],
)
def test_the_radii_are_those_of_adversarial_library(
    plain: tuple[nn.Module, Tensor, Tensor], ours: Baseline, theirs: Callable[..., Tensor], within: float
):
    model, images, labels = plain
    found = theirs(model, images, labels)
    assert (model(found).argmax(dim=1) != labels).all()
    reference = (found - images).flatten(1).norm(dim=1).tolist()
    classifier = SmoothedClassifier(model, sigma=SIGMA, num_classes=10, input_shape=(1, 28, 28), gradient_chunk=512)
    examples = [Example(i, x, int(y)) for i, (x, y) in enumerate(zip(images, labels, strict=True))]
    attack = replace(ours, samples=SAMPLES, alpha=ALPHA)
    findings = sorted(Search(attack, classifier, len(examples)).run(examples), key=lambda f: f.example.index)
    radii = [finding.candidates[0].distance for finding in findings]
    assert median(radii) == pytest.approx(median(reference), rel=within)
    # Where they differ more, another class was reached, or a point on the way was the nearest.
    assert sum(abs(one / other - 1) > within for one, other in zip(radii, reference, strict=True)) <= 2
