"""Attacks with a target: against points known in closed form, and on images of the demo."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from networks import Sectors, make_linear, make_sectors

from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.criterion import Aim, adversarial
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Batch, Example, Finding
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attacks import ATTACKS
from caa_cli.data.datasets import open_dataset
from caa_cli.data.images import ImageArrays
from caa_cli.python.model import load
from caa_cli.results.records import ATTACKED, LABEL_IS_TARGET
from caa_cli.run.attack_pipeline import AttackPipeline
from caa_cli.run.registry import build_attack
from caa_cli.run.targets import Targets
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.objective import CrossEntropy, GumbelGap, LogOdds, LogRatio, logit_margin
from caa_cli.smoothing.stein import SteinEstimator
from caa_cli.verification.verifier import Verifier

# Enough for each to come near: what a published attack takes, at a few samples.
SETTINGS: dict[str, dict[str, Any]] = {
    "caa": {},
    "caa-newton": {},
    "pgd": {"epsilon": 0.05},
    "cw": {"initial_constant": 1.0, "binary_search_steps": 3, "learning_rate": 0.03},
    "autoattack": {"minimise": True, "searches": 8},
    "ddn": {},
    "fmn": {},
    "alma": {},
}
TARGETED = [name for name, spec in ATTACKS.items() if spec.takes_target]


def attack_of(name: str, samples: int = 400, gradient: str = "model", **settings: Any) -> Attack[Any]:
    settings = {**SETTINGS[name], **settings}
    prefix = {"caa": "", "caa-newton": "newton_"}.get(name, f"{name}_")
    own = {prefix + key: value for key, value in settings.items()}
    given = {"samples": samples, "iterations": 60, "target": "1", "gradient": gradient, **own}
    return build_attack(AttackPlan.of(checkpoint="demo", attack=name, **given))


@cache
def sectors() -> Sectors:
    return make_sectors()


def search(attack: Attack[Any], examples: list[Example], model: Sectors) -> dict[int, Finding]:
    findings = Search(attack, model.classifier, batch=len(examples)).run(examples)
    return {finding.example.index: finding for finding in findings}


# Polar coordinates of clean images of class 0; class 1 has the axis at 120°, class 2 that at 240°.
PLACES = {
    "straight across": (1.5, 20.0),
    "class 2 is nearer": (1.2, -40.0),
    "the nearest point is the corner": (0.9, -58.0),
}


@pytest.mark.parametrize("name", TARGETED)
def test_the_nearest_point_at_which_the_target_wins(name: str):
    """Verified radii, against the distance to the target's sector: to its side, or to its corner."""
    model = sectors()
    examples = [
        Example(index, model.at(*place), 0, certified_radius=0.3, target=1)
        for index, place in enumerate(PLACES.values())
    ]
    found = search(attack_of(name), examples, model)
    for index, place in enumerate(PLACES.values()):
        verified = Verifier(samples=15_000).verify(found[index], model.classifier)
        nearest = model.distance(*place, target=1)
        assert verified.adversarial_class == 1
        assert verified.radius is not None
        assert nearest < verified.radius < 1.12 * nearest + 0.08, (name, place)
    assert model.distance(*PLACES["class 2 is nearer"], target=2) < 0.5 * model.distance(*place, target=1)


@pytest.mark.parametrize("name", ["caa", "caa-newton"])
def test_by_votes_alone(name: str):
    model = make_sectors(gradients=SteinEstimator())
    clean = model.at(1.2, -30.0)
    ends = torch.stack([model.at(1.5, 240.0), model.at(1.5, 130.0), model.at(1.4, 110.0)])
    example = Example(0, clean, 0, starting_points=ends, target=1)
    settings = {"sample_schedule": "fixed"} if name == "caa" else {}
    finding = search(attack_of(name, 3000, gradient="votes", **settings), [example], model)[0]
    verified = Verifier(samples=15_000).verify(finding, model.classifier)
    assert verified.adversarial_class == 1
    assert model.distance(1.2, -30.0, 1) < verified.radius < 1.25 * model.distance(1.2, -30.0, 1)
    without = Example(0, clean, 0, starting_points=ends[:1], target=1)  # only an image of class 2
    assert search(attack_of(name, gradient="votes"), [without], model)[0].candidates == []


def test_a_third_class_in_the_lead_is_no_success_and_is_on_the_side_of_the_clean_image():
    votes = torch.tensor([[10, 900, 90], [400, 300, 300], [0, 0, 1000], [500, 500, 0]])
    targets = torch.tensor([2, 2, 2, 0])
    labels = torch.tensor([0, 0, 0, 1])
    assert adversarial(votes, labels, 1000, 0.01, "goodman").tolist() == [True, False, True, False]
    aim = Aim(targets, targeted=True)
    assert aim.reached(votes, 1000, 0.01, "goodman").tolist() == [False, False, True, False]
    leaders = votes.argmax(dim=1)
    assert aim.is_original(leaders).tolist() == [True, True, False, False]
    assert Aim(labels).is_original(leaders).tolist() == [False, True, False, False]
    assert aim.of(torch.tensor([2])).reached(votes[2:3], 1000, 0.01, "goodman").tolist() == [True]


def test_a_batch_has_a_target_for_every_example_or_for_none():
    image = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match="some examples"):
        Batch.new([Example(0, image, 0, target=1), Example(1, image, 0)], 3)
    state = Batch.new([Example(0, image, 0, target=1), Example(1, image, 0, target=2)], 3)
    state.extend(Batch.new([Example(2, image, 1, target=0)], 3))
    assert state.aim.classes.tolist() == [1, 2, 0]
    state.take(torch.tensor([0, 2]))
    assert (state.aim.classes.tolist(), state.labels.tolist(), state.aim.targeted) == ([1, 0], [0, 1], True)


def slopes_by_finite_differences(value: Any, log_mean: torch.Tensor) -> torch.Tensor:
    """∂J/∂p̄ of a function of log p̄, (examples, classes), float64."""
    p = log_mean.double().exp()
    found = torch.zeros_like(p)
    for c in range(p.shape[1]):
        step = 1e-6 * p[:, c]
        up, down = p.clone(), p.clone()
        up[:, c] += step
        down[:, c] -= step
        found[:, c] = (value(up.log()) - value(down.log())) / (2 * step)
    return found


@pytest.mark.parametrize("classes", [2, 3, 4, 7])
def test_slopes_of_targeted_objectives_are_their_derivatives(classes: int):
    log_mean = torch.log_softmax(torch.randn(5, classes, generator=torch.Generator().manual_seed(0)) * 2, dim=1)
    targets = torch.arange(5) % classes
    rows = torch.arange(5)

    def odds(z: torch.Tensor) -> torch.Tensor:
        """log p_t − log Σ of the others, as a function of free p."""
        rest = z.exp().sum(dim=1) - z.exp()[rows, targets]
        return z[rows, targets] - rest.log()

    def ratio(z: torch.Tensor) -> torch.Tensor:
        others = z.clone()
        others[rows, targets] = -torch.inf
        ordered = z.sort(dim=1, descending=True).values
        spread = ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) if classes > 3 else 1.0
        return (others.amax(dim=1) - z[rows, targets] + 0.1) / spread

    for objective, value in (
        (CrossEntropy().to_reach(), odds),
        (LogRatio().to_reach(), lambda z: -logit_margin(z, targets)),
        (LogitRatio(0.1).to_reach(), ratio),
    ):
        log_slope, sign = objective.slopes(log_mean, targets)
        expected = slopes_by_finite_differences(value, log_mean)
        assert torch.allclose(sign.double() * log_slope.double().exp(), expected, rtol=1e-4, atol=1e-4), objective
    assert torch.allclose(LogitRatio(0.1, reach=True).value(log_mean.double(), targets), ratio(log_mean.double()))


def test_a_target_that_is_all_but_impossible_still_has_a_gradient():
    """Where the label has all of the mean softmax: the direction of the targeted cross-entropy, not zero."""
    model = make_linear(scale=60.0)
    image = model.at(3.0)
    keys = Batch.new([Example(0, image, 1, target=0)], 2).keys(0)
    passed = model.classifier.surrogate(image[None], torch.tensor([0]), keys, 200, CrossEntropy().to_reach())
    gradient = passed.gradient.flatten()
    assert torch.isfinite(gradient).all()
    towards = -model.weight / model.weight.norm()
    assert float((gradient / gradient.norm()) @ towards) == pytest.approx(1.0, abs=1e-3)
    assert isinstance(CrossEntropy().to_reach(), LogOdds)
    assert GumbelGap(temperature=0.2).to_reach().temperature == 0.2
    assert GumbelGap().to_reach().gumbel


@cache
def demo() -> tuple[Any, ImageArrays]:
    images = open_dataset("demo", None, "test")
    pixels = torch.stack([images.image(index) for index in range(3)])
    return load("demo", device="cpu"), ImageArrays("demo", "test", pixels, images.labels[:3], 10, numbers=range(3))


@pytest.mark.parametrize("name", TARGETED)
def test_each_attack_reaches_the_target_on_an_image_of_the_demo(name: str):
    """The verified class is the target, which is not the class that the untargeted attack ends in."""
    model, images = demo()
    plan = AttackPlan.of(
        checkpoint="demo",
        attack=name,
        target="3",
        samples=150,
        iterations=30,
        verify_samples=5000,
        **{f"{name}_radius": 4.0} if name == "autoattack" else {},
        **{f"{name}_initial_constant": 10.0, f"{name}_binary_search_steps": 2} if name == "cw" else {},
        **{"pgd_epsilon": 0.3} if name == "pgd" else {},
    )
    pipeline = AttackPipeline(plan, build_attack(plan), model, images, targets=Targets(fixed=3))
    (record,) = (record for record, _ in pipeline.run([1]))
    assert (record.label, record.target, record.outcome, record.adversarial_class) == (2, 3, ATTACKED, 3)
    assert record.radius >= record.certified_radius


def test_newton_follows_the_boundary_of_a_target_that_is_far():
    """The fifth image, to its least likely class: six steps to come near, and more than its first step to slide."""
    model, images = load("demo", device="cpu"), open_dataset("demo", None, "test")
    attack = build_attack(AttackPlan.of(checkpoint="demo", attack="caa-newton", target="1"))
    (finding,) = Search(attack, model).run([Example(4, images.image(4), 4, target=1)])
    verified = Verifier(samples=3750).verify(finding, model)
    assert verified.adversarial_class == 1
    assert verified.radius < 4.7


def test_an_image_of_the_target_s_class_is_left_out():
    model, images = demo()
    plan = AttackPlan(checkpoint="demo", target="7", samples=100, verify_samples=1000)
    pipeline = AttackPipeline(plan, build_attack(plan), model, images, targets=Targets(fixed=7))
    (record,) = (record for record, _ in pipeline.run([0]))
    assert (record.outcome, record.label, record.target, record.prediction) == (LABEL_IS_TARGET, 7, 7, None)
    assert record.forward_evaluations == 0
    assert not record.eligible


def test_the_margin_that_is_missing_is_negative_where_the_aim_is_reached():
    z = torch.log(torch.tensor([[0.2, 0.5, 0.3], [0.5, 0.2, 0.3]]))
    assert Aim(torch.tensor([0, 0])).margin(z).sign().tolist() == [-1, 1]
    assert Aim(torch.tensor([1, 2]), targeted=True).margin(z).sign().tolist() == [-1, 1]
