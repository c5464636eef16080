"""Without noise the baselines are the attacks that their names say: the same radii as Foolbox's."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import pytest
import torch
from support import demo_images

from caa_cli.attacks.baselines.baseline import Baseline
from caa_cli.attacks.baselines.cw import CarliniWagner
from caa_cli.attacks.baselines.ddn import Ddn
from caa_cli.attacks.baselines.deepfool import DeepFool
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.smoothing.classifier import SmoothedClassifier

foolbox = pytest.importorskip("foolbox")

# Noise far below a pixel's last bit: the smoothed classifier is the plain one, and five votes for the same class are
# confident at this level.
SIGMA, SAMPLES, ALPHA = 1e-7, 5, 0.4


@pytest.fixture(scope="module")
def plain():
    weights = read_weights(DEMO_CHECKPOINT)
    assert weights.card is not None
    model = build_model(weights, weights.card).eval().requires_grad_(False)
    images, labels = demo_images()
    x = torch.from_numpy(images[:12]).float()[:, None] / 255
    y = torch.from_numpy(labels[:12]).long()
    right = model(x).argmax(dim=1) == y
    return model, x[right], y[right]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Ddn(steps=100), lambda a: a.DDNAttack(init_epsilon=1.0, steps=100, gamma=0.05)),
        (DeepFool(steps=50), lambda a: a.L2DeepFoolAttack(steps=50, candidates=10, overshoot=0.02, loss="logits")),
        (
            CarliniWagner(steps=60, binary_search_steps=5, initial_constant=0.1, learning_rate=0.1),
            lambda a: a.L2CarliniWagnerAttack(
                steps=60, binary_search_steps=5, initial_const=0.1, stepsize=0.1, abort_early=False
            ),
        ),
    ],
    ids=["ddn", "deepfool", "cw"],
)
def test_the_median_radius_is_that_of_foolbox(plain, ours: Baseline, theirs):
    model, images, labels = plain
    _, clipped, success = theirs(foolbox.attacks)(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=None
    )
    reference = (clipped - images).flatten(1).norm(dim=1)
    assert success.all()
    classifier = SmoothedClassifier(model, sigma=SIGMA, num_classes=10, input_shape=(1, 28, 28), gradient_chunk=512)
    examples = [Example(i, x, int(y)) for i, (x, y) in enumerate(zip(images, labels, strict=True))]
    attack = replace(ours, samples=SAMPLES, alpha=ALPHA)
    found = sorted(Search(attack, classifier, len(examples)).run(examples), key=lambda f: f.example.index)
    radii = [finding.candidates[0].distance for finding in found]
    assert median(radii) == pytest.approx(median(reference.tolist()), rel=0.03)
    # And nearly every image's: where they differ, another class was reached.
    apart = [abs(one / other - 1) > 0.03 for one, other in zip(radii, reference.tolist(), strict=True)]
    assert sum(apart) <= 2
