"""The settings of attacks as a comparison sees them: shared by all, or of each search."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import declared, samples_by_default
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.differences import FORMERLY
from caa_cli.config.model_plan import ModelPlan

# The settings that decide which images are eligible and when an attack counts as verified: all attacks compared
# share them. SEARCH: the further ones of a search, whichever attack it is.
SHARED = (
    *(f.name for f in fields(ModelPlan) if f.name not in ModelPlan.NOT_COMPARED),
    *("selection_samples", "certify_samples", "verify_samples", "verification", "finish", "target"),
)
SEARCH = tuple(
    f.name for f in fields(AttackPlan) if f.name not in {*SHARED, *AttackPlan.NOT_COMPARED, "attack", "settings"}
)


def setting_names(attack: str) -> list[str]:
    """The names of all settings of an attack's search; for an attack that this version does not know, SEARCH."""
    return [*(declared(attack) if attack in ATTACKS else ()), *SEARCH]


def default_of(attack: str, name: str) -> Any:
    """A setting's default; None for one that this version does not know."""
    if name == "samples":
        return samples_by_default(attack)
    setting = declared(attack).get(name) if attack in ATTACKS else None
    return getattr(AttackPlan, name, None) if setting is None else setting.default


def former_value(attack: str, name: str) -> Any:
    """The value that runs had before the setting existed, if that is not its default now; else None."""
    setting = declared(attack).get(name) if attack in ATTACKS else None
    return FORMERLY.get(name) if setting is None else setting.formerly
