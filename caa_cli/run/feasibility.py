"""Warnings of runs that can find nothing, however sure the model is, or less than they could."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.run.certify_pipeline import certifier_of, decider_of
from caa_cli.runtime.words import counted
from caa_cli.smoothing.certify import Certifier
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.verification.rules import RULES


def attack_warnings(plan: AttackPlan, attack: Attack[Any], classes: int) -> Iterator[str]:
    """What an attack with this plan can't do."""

    def separable(samples: int) -> bool:
        return bool(Certifier(samples=samples, alpha=plan.alpha, bound=plan.bound).best(classes).confident)

    rule = RULES[plan.verification](plan.verify_samples, plan.alpha, plan.bound)
    findable = attack.PROPOSES_UNCONFIRMED or separable(attack.samples_a_step()[1])
    for option, what, samples, possible in (
        ("--samples", "find", plan.samples, findable),
        ("--certify-samples", "certify", plan.certify_samples, separable(plan.certify_samples)),
        ("--verify-samples", "verify", plan.verify_samples, rule.can_pass(classes)),
    ):
        if not possible:
            yield f"{option} {samples} can {what} nothing: not even a unanimous vote is enough at α = {plan.alpha:g}"


def gradient_warnings(classifier: SmoothedClassifier) -> Iterator[str]:
    """What makes gradients of this classifier weak."""
    if classifier.differentiates and _gives_probabilities(classifier):
        yield (
            "the network returns probabilities, not logits: gradients are those of a second softmax, which is flat, "
            "so attacks may end further away or find nothing. Let it return what is before its softmax, or "
            "log_softmax in its place"
        )


def _gives_probabilities(classifier: SmoothedClassifier) -> bool:
    """Whether what gradients are taken of ends in a softmax: its outputs for random images are shares of 1."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):  # one at a time: memory may have room for no more
        image = torch.rand(1, *classifier.input_shape, generator=generator)
        with torch.no_grad():
            output = classifier.differentiated(image.to(classifier.grey())).double()
        if not bool((output >= 0.0).all() and (output.sum() - 1.0).abs() < 0.01):  # as near as bfloat16 is
            return False
    return True


def certify_warnings(plan: CertifyPlan, classes: int) -> Iterator[str]:
    """What a certification with this plan can't do."""
    if plan.radius is None:
        most = float(certifier_of(plan).best(classes).radius(plan.sigma or 0.0, plan.certificate))
    else:
        most = decider_of(plan).largest_radius(plan.sigma or 0.0)
    samples = counted(plan.samples, "sample")
    if most <= 0.0:
        yield (
            f"with {samples} at α = {plan.alpha:g} not even a unanimous vote certifies anything: raise --samples "
            "or --alpha"
        )
    elif plan.radius is not None and most <= plan.radius:
        yield (
            f"with {samples} at α = {plan.alpha:g} not even a unanimous vote reaches the radius "
            f"{plan.radius:g} (at most {most:.3f}): raise --samples"
        )
