"""The rows that a run shows before it begins, and what it will cost."""

from __future__ import annotations

from typing import Any

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.choices import VOTES
from caa_cli.config.plan import AttackPlan
from caa_cli.display import Rows
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.verification.rules import RULES
from caa_cli.verification.verifier import Verifier

# How many tries a verification usually takes (docs/method/verification.md).
TYPICAL_TRIES = 1.25


def attack_rows(plan: AttackPlan, attack: Attack[Any], num_classes: int) -> Rows:
    """What is about to run; `plan` is the resolved one."""
    rows = [("attack", f"{plan.attack}: {attack.in_words()}, seed {plan.seed}")]
    if plan.gradient == VOTES:
        rows.append(("gradients", "none: votes alone, from the side of other images"))
    elif plan.surrogate_model is not None:
        rows.append(("gradients", f"of {plan.surrogate_model}; votes are the target's"))
    rows += attack.notes(num_classes)
    if plan.attack_sigma not in (None, plan.sigma):
        rows.append(("attacker", f"takes σ to be {plan.attack_sigma:g}; certificate and verification use the true σ"))
    fresh = f"{plan.verify_samples} fresh samples a try; certified radius on {plan.certify_samples}"
    return [*rows, ("verification", fresh), ("results", str(plan.output))]


def most_evaluations(plan: AttackPlan, attack: Attack[Any], cost: GradientCost, images: int) -> dict[str, int | None]:
    """The most model evaluations that a run can take, forward and backward, in chunks that hold the pilot; None where
    only the attack's code knows."""
    most = _evaluations(plan, attack, cost, 1.0, Verifier().tries)
    names = ("forward_evaluations_at_most", "backward_evaluations_at_most")
    return {name: None if of_one is None else int(images * of_one) for name, of_one in zip(names, most, strict=True)}


def estimate(plan: AttackPlan, attack: Attack[Any], cost: GradientCost, images: int) -> Rows:
    """Rows of the most evaluations and of those that are usual on smoothed MNIST models."""
    usual = _evaluations(plan, attack, cost, attack.typical_share(), TYPICAL_TRIES)
    return [
        (name.removesuffix("_at_most").replace("_", " "), _shown(most, typical, images))
        for (name, most), typical in zip(most_evaluations(plan, attack, cost, images).items(), usual, strict=True)
    ]


def _shown(most: int | None, typical: float | None, images: int) -> str:
    if most is None or typical is None:
        return "unknown: the attack decides"
    return f"{most:,} · {images * typical:,.0f}"


def _evaluations(
    plan: AttackPlan, attack: Attack[Any], cost: GradientCost, share: float, tries: float
) -> tuple[float | None, float | None]:
    """(forward, backward) of one image, certificate and verification included, for this share of the search; None
    where they are not known."""
    budget = attack.budget(cost)
    if budget is None:
        return None, None
    forward, backward = budget
    clean = plan.selection_samples + plan.certify_samples
    rule = RULES[plan.verification](plan.verify_samples, plan.alpha, plan.bound)
    verification = tries * plan.verify_samples + rule.PROBES * rule.probe_samples(plan.selection_samples)
    return clean + share * forward + verification, share * backward
