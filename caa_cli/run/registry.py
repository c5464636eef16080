"""From the name of an attack in a plan to the attack."""

from __future__ import annotations

from typing import Any

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.attacks import spec_of
from caa_cli.config.choices import VOTES
from caa_cli.config.plan import AttackPlan
from caa_cli.config.settings import load


def build_attack(plan: AttackPlan) -> Attack[Any]:
    """The attack that a plan names, with the plan's settings."""
    spec = spec_of(plan.attack)
    kind: type[Attack[Any]] = load(spec.by_votes if spec.by_votes and plan.gradient == VOTES else spec.runs)
    run = {"samples": plan.samples, "alpha": plan.alpha, "bound": plan.bound, "seed": plan.seed}
    attack = kind.of(plan.settings, plan.iterations, **run)
    return attack.after_target() if plan.targeted else attack
