"""The rows that a run shows before it begins, and how many evaluations it takes."""

from __future__ import annotations

from typing import Any

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.choices import EXACT, VOTES
from caa_cli.config.plan import AttackPlan
from caa_cli.config.targets import TARGET_RULES, Classes, target_in_words
from caa_cli.display import Rows
from caa_cli.run.dry_run import Evaluations
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.verification.rules import RULES


def attack_rows(plan: AttackPlan, attack: Attack[Any], classes: Classes) -> Rows:
    """What is about to run; `plan` is the resolved one."""
    rows = [("attack", f"{plan.attack}: {attack.in_words()}, seed {plan.seed}")]
    if plan.gradient == VOTES:
        rows.append(("gradients", "none: votes alone, from the side of other images"))
    elif plan.surrogate_model is not None:
        rows.append(("gradients", f"of {plan.surrogate_model}; votes are the target's"))
    if plan.targeted:
        rows.append(("target", _target(plan, classes)))
    rows += attack.notes(classes.count)
    if plan.attack_sigma not in (None, plan.sigma):
        rows.append(("attacker", f"takes σ to be {plan.attack_sigma:g}; certificate and verification use the true σ"))
    samples = f"{'at most ' if plan.verification == EXACT else ''}{plan.verify_samples} fresh samples a try"
    fresh = f"{plan.verification}, {samples}; certified radius on {plan.certify_samples}"
    return [*rows, ("verification", fresh), ("results", str(plan.output))]


def _target(plan: AttackPlan, classes: Classes) -> str:
    """The target in words."""
    words = target_in_words(str(plan.target), classes.shown)
    if plan.target_file is not None:
        return f"{words}: {plan.target_file}"
    return words if plan.target in TARGET_RULES else f"{words}; its own images are left out"


def evaluations(
    plan: AttackPlan,
    attack: Attack[Any],
    cost: GradientCost,
    images: int,
    typical: bool = False,
    choice: int = 0,
) -> Evaluations | None:
    """The most model evaluations that a run can take, in chunks that hold the pilot, certificates and verification
    included; None where only the attack's code knows. typical: those that are usual on smoothed MNIST models.

    choice: those of the choice of an image's target.
    """
    budget = attack.budget(cost)
    if budget is None:
        return None
    forward, backward = budget
    share = attack.typical_share() if typical else 1.0
    clean = plan.selection_samples + plan.certify_samples + choice
    rule = RULES[plan.verification](plan.verify_samples, plan.alpha, plan.bound)
    verification = rule.evaluations(plan.selection_samples, typical)
    return Evaluations(images * (clean + share * forward + verification), images * share * backward)
