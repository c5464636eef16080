"""Settings by the name of the work that they were published in. Free of torch.

A preset takes the place of defaults: flags, environment variables and a TOML file override it. Training recipes are
presets too (`config.recipes`); those below are of attacks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from caa_cli.config.attack_settings import foreign
from caa_cli.config.bounds import GOODMAN
from caa_cli.config.certificates import COHEN
from caa_cli.config.choices import FIXED, GUMBEL, INTERVALS, MID_GREY, NO_LINE_SEARCH, RADIAL
from caa_cli.config.ranges import OneOf


@dataclass(frozen=True)
class Preset:
    """settings: by users' names.  by_sigma: those that depend on the noise, by sigma."""

    source: str
    settings: dict[str, Any]
    by_sigma: dict[float, dict[str, Any]] = field(default_factory=dict)

    def nearest(self, sigma: float) -> float | None:
        """The published noise nearest to `sigma`; None where no setting depends on the noise."""
        return min(self.by_sigma, key=lambda known: abs(known - sigma)) if self.by_sigma else None

    def at(self, sigma: float) -> dict[str, Any]:
        """The settings for models trained at this noise."""
        nearest = self.nearest(sigma)
        return self.settings if nearest is None else {**self.settings, **self.by_sigma[nearest]}


def _paper(samples: int) -> Preset:
    """The paper's "Results", with so many samples an expectation. Settings that are defaults today are named too."""
    shared = {"alpha": 0.005, "bound": GOODMAN, "certificate": COHEN, "verification": INTERVALS}
    # The paper verifies nothing on fresh noise, so the samples of that are the defaults'.
    shared |= {"samples": samples, "selection_samples": samples, "certify_samples": samples, "iterations": 100}
    shared |= {"finish": NO_LINE_SEARCH}
    temperature = 0.01
    caa = {"overshoot": 1.05, "undershoot": 0.95, "step_min": 0.1, "step_max": 0.25, "refine": RADIAL, "rivals": 1}
    caa |= {"patience": 0, "sample_schedule": FIXED, "surrogate": GUMBEL, "temperature": temperature}
    pgd = {"pgd_epsilon": 20 / 255, "pgd_gumbel_temperature": temperature}
    cw: dict[str, Any] = {"cw_constant": 1e-4, "cw_learning_rate": 0.01, "cw_confidence": 0.0}
    cw |= {"cw_gumbel_temperature": temperature}
    cw |= {"cw_start_at": MID_GREY}  # of the published code; the paper doesn't say
    deepfool = {"deepfool_overshoot": 0.02, "deepfool_candidates": 10, "deepfool_gumbel_temperature": temperature}
    autoattack = {"autoattack_minimise": False, "autoattack_gumbel_temperature": temperature}
    return Preset("Et Tu Certifications", shared | caa | pgd | cw | deepfool | autoattack)


PRESETS: dict[str, Preset] = {
    "paper": _paper(samples=1500),
    "paper-imagenet": _paper(samples=600),
}


def preset_of_attack(name: str | None, attack: str | None = None) -> dict[str, Any]:
    """The settings of a preset by users' names, for one attack or for all; empty where the name is None.

    Raises UsageError for an unknown name.
    """
    if name is None:
        return {}
    OneOf(PRESETS).check("--preset", name)
    others = set() if attack is None else foreign(attack)
    return {setting: value for setting, value in PRESETS[name].settings.items() if setting not in others}
