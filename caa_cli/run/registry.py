"""From the name of an attack in a plan to the attack."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

import torch

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import spec_of
from caa_cli.config.choices import VOTES
from caa_cli.runtime.device import weights_dtype


def build_attack(plan: AttackPlan) -> Attack[Any]:
    """The attack that a plan names, with the plan's settings."""
    spec = spec_of(plan.attack)
    kind: type[Attack[Any]] = resolve_name(spec.by_votes if spec.by_votes and plan.gradient == VOTES else spec.runs)
    run = {name: getattr(plan, name) for name in ("samples", "alpha", "bound", "seed", "certificate")}
    attack = kind.of(plan.settings, plan.iterations, **run)
    return attack.after_target() if plan.targeted else attack


def search_dtype_of(plan: AttackPlan, device: torch.device) -> torch.dtype | None:
    """The dtype of the search's own copy of the weights; None where it has none. Raises UsageError."""
    return None if plan.search_dtype == plan.dtype else weights_dtype(plan.search_dtype, device, "--search-dtype")
