"""Every attack, certificates and training on a CUDA device: nothing is mixed, and results are the CPU's.

The device is a pretended one, whose results are exactly the CPU's, and a real one where there is one. The real one
rounds otherwise; it would also draw other noise, so the tests give it the CPU's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
import torch
from gpu import HostNoise, assert_near, needs_gpu
from pretended_device import PretendedDevice, PretendedTensor
from step_counts import demo_classifier
from torch import Tensor

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.choices import SURROGATE_MODEL, VOTES
from caa_cli.config.methods import METHODS
from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.datasets import open_dataset
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.denoisers.card import DenoiserCard
from caa_cli.models.denoisers.dncnn import DnCNN
from caa_cli.results.certificates import CertifyRecord
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.run.attack_pipeline import AttackPipeline
from caa_cli.run.certify_pipeline import CertifyPipeline
from caa_cli.run.registry import build_attack
from caa_cli.smoothing import input_gradients
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientSource
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.smoothing.stein import SteinEstimator
from caa_cli.training.feed import MemoryFeed
from caa_cli.training.loop import Trainer
from caa_cli.training.new_classifier import NewClassifier
from caa_cli.training.new_denoiser import NewDenoiser
from caa_cli.training.trainee import Trainee

T = TypeVar("T")
CPU, CUDA = "cpu", "cuda:0"
CARD = ModelCard("small-cnn", 10, (1, 28, 28), (0.1307,), (0.3081,), "demo", 0.25, "gaussian")
# A GPU's noise comes in larger blocks than a CPU's, each from a seed of its own.
GPU_BLOCK = 256

IMAGES = range(1, 3)
# Long steps, so that few are enough; of cw and autoattack few rounds.
CAA = {"attack": "caa", "step_min": 0.4, "step_max": 0.8}
PGD = {"attack": "pgd", "pgd_epsilon": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    **{attack: {"attack": attack} for attack in ATTACKS},
    "caa": CAA,
    "pgd": PGD,
    "cw": {"attack": "cw", "cw_binary_search_steps": 2, "cw_initial_constant": 10.0},
    "ddn": {"attack": "ddn", "ddn_initial_norm": 3.0},
    "caa, tangential": {**CAA, "refine": "tangential"},
    "caa, two rivals": {**CAA, "rivals": 2},
    "caa, gumbel": {**CAA, "surrogate": "gumbel", "temperature": 1.0},
    "caa, votes alone": {**CAA, "gradient": VOTES},
    "caa-newton, votes alone": {"attack": "caa-newton", "gradient": VOTES, "newton_steps": 6, "newton_rivals": 2},
    "pgd, surrogate": {**PGD, "gradient": f"{SURROGATE_MODEL}=demo"},
    "autoattack, smallest radius": {
        "attack": "autoattack",
        "autoattack_minimise": True,
        "autoattack_searches": 2,
        "iterations": 4,
    },
    "pdgd": {"attack": "pdgd", "iterations": 30},
    "apgd-min": {"attack": "apgd-min", "apgd_min_targets": 2, "apgd_min_searches": 2, "iterations": 4},
    "caa, step certificate": {**CAA, "step_certificate": "li"},
    "caa, intervals": {**CAA, "verification": "intervals"},
    "pgd, as proposed": {**PGD, "finish": "none"},
    "caa, another sigma": {**CAA, "attack_sigma": 0.3},
}


@pytest.fixture(params=["pretended", pytest.param("real", marks=needs_gpu)])
def real(request: pytest.FixtureRequest) -> bool:
    """Whether the device is a real one."""
    if request.param == "real":
        torch.cuda.set_per_process_memory_fraction(1.0)  # a command with --max-memory may have run in this process
    return bool(request.param == "real")


def on_both(work: Callable[[str], T], real: bool) -> tuple[T, T]:
    """What some work returns on the CPU, by the gradients that a GPU has, and on the device."""
    with nullcontext() if real else PretendedDevice():
        there = work(CUDA)
    with patch.object(input_gradients, "is_faster_in_blocks", return_value=False):
        return work(CPU), there


def classifier_on(device: str, gradients: GradientSource | None = None) -> SmoothedClassifier:
    """The demo, with the same noise on the CPU and on either device."""
    classifier = demo_classifier(device, 512, gradients)
    assert classifier.noise.block == (64 if device == CPU else GPU_BLOCK)
    classifier.noise.block = GPU_BLOCK
    if not isinstance(classifier.grey(), PretendedTensor):
        classifier.noise = HostNoise(classifier.input_shape, GPU_BLOCK)
    return classifier


def gradients_of(plan: AttackPlan, device: str) -> GradientSource | None:
    if plan.surrogate_model is not None:
        return SurrogateModel(demo_classifier(device).model)
    return SteinEstimator() if plan.gradient == VOTES else None


def attacked(plan: AttackPlan, device: str) -> list[tuple[AttackRecord, list[float] | None]]:
    """Records and adversarial images of the first demo images."""
    classifier, images = classifier_on(device, gradients_of(plan, device)), open_dataset("demo", None, "test")
    pipeline = AttackPipeline(plan, build_attack(plan), classifier, images)
    found = pipeline.run(IMAGES)
    return [
        (replace(record, seconds=0.0), None if image is None else image.ravel().tolist())
        for record, image in sorted(found, key=lambda pair: pair[0].index)
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_attack_is_the_same_as_on_the_cpu(variant: str, real: bool):
    common = {"checkpoint": "demo", "samples": 100, "iterations": 8, "verify_samples": 1000, "batch_size": 2}
    plan = AttackPlan.of(**{**common, **VARIANTS[variant]})
    here, there = on_both(lambda device: attacked(plan, device), real)
    assert len(here) == len(IMAGES)
    assert ATTACKED in [record.outcome for record, _ in here], "not all of the pipeline is tried"
    if not real:
        assert there == here
    for (record, _), (expected, _) in zip(there, here, strict=True):
        assert record.outcome == expected.outcome
        assert_near(record.certified_radius, expected.certified_radius, 0.01)
        assert_near(record.radius, expected.radius, 0.02)


@pytest.mark.parametrize("radius", [None, 0.25])
@pytest.mark.parametrize("bound", ["goodman", "cp-bonferroni", "clopper-pearson"])
def test_certificates_are_the_same_as_on_the_cpu(bound: str, radius: float | None, real: bool):
    plan = CertifyPlan(checkpoint="demo", samples=1000, radius=radius, bound=bound)

    def certified(device: str) -> list[CertifyRecord]:
        pipeline = CertifyPipeline(plan, classifier_on(device), open_dataset("demo", None, "test"))
        return [replace(record, seconds=0.0) for record in pipeline.run(range(5))]

    here, there = on_both(certified, real)
    assert any(record.outcome == "certified" for record in here)
    if not real:
        assert there == here
    for record, expected in zip(there, here, strict=True):
        assert record.outcome == expected.outcome
        assert_near(record.radius, expected.radius, 0.01)


# Of each method's settings those that matter here.
METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    **{method: {"method": method} for method in METHODS},
    "denoiser": {"method": "denoiser", "classifier": "demo", "mse_epochs": 0, "depth": 3, "width": 4},
    "denoiser, mse": {"method": "denoiser", "objective": "mse", "depth": 3, "width": 4},
    "smoothadv, ddn": {"method": "smoothadv", "inner_attack": "ddn"},
}


def trainee_of(plan: TrainPlan) -> Trainee:
    """A small network to train, with the same weights every time; a denoiser in front of the demo's classifier."""
    torch.manual_seed(0)
    if not METHODS[plan.method].denoises:
        return NewClassifier(build(CARD), CARD)
    depth, width = plan.settings.depth, plan.settings.width
    card = DenoiserCard("dncnn", 1, depth, width, plan.sigma)
    return NewDenoiser(DnCNN(1, depth, width), card, demo_classifier(CPU).model, CARD.num_classes)


def trainer_of(variant: str, device: str, images: int, heldout: int = 0, augment: str = "none") -> Trainer:
    """A trainer of this method for the first demo images, in batches of 20."""
    plan = TrainPlan.of(**METHOD_SETTINGS[variant], sigma=0.25, epochs=1, batch_size=20, clip_norm=1.0)
    data, where = open_dataset("demo", None, "train"), torch.device(device)
    feeds = (
        MemoryFeed(data.images[part], data.labels[part], where, augment)
        for part in (slice(0, images), slice(images, images + heldout))
    )
    loss = resolve_name(METHODS[plan.method].runs)(**vars(plan.settings))
    return Trainer(trainee_of(plan), loss, plan, *feeds, where)


@pytest.mark.parametrize("variant", METHOD_SETTINGS)
def test_training_is_the_same_as_on_the_cpu(variant: str, real: bool):
    def trained(device: str) -> dict[str, Tensor]:
        trainer = trainer_of(variant, device, images=40, heldout=20)
        report = vars(trainer.run_epoch(lambda *progress: None))
        measured = {name: torch.tensor(value) for name, value in report.items() if isinstance(value, float)}
        del measured["seconds"]
        return measured | {name: tensor.cpu() for name, tensor in trainer.model.state_dict().items()}

    here, there = on_both(trained, real)
    assert here.keys() == there.keys() >= {"loss", "heldout_accuracy"}
    if real:  # its noise is its own; of a denoiser it makes much of the loss
        assert 0.3 < float(there["loss"] / here["loss"]) < 3
        assert all(bool(tensor.isfinite().all()) for tensor in there.values())
        return
    for name in here:
        torch.testing.assert_close(there[name], here[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("variant", METHOD_SETTINGS)
def test_a_training_step_never_waits(variant: str):
    def waits(steps: int) -> int:
        with PretendedDevice() as device:
            trainer = trainer_of(variant, CUDA, images=20 * steps, augment="crop-flip")
            device.operations.clear()
            trainer.run_epoch(lambda *progress: None)
            return device.syncs + device.uploads

    assert waits(4) == waits(2)
