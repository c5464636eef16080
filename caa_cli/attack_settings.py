"""The settings that belong to one attack: their names, their defaults, and what they may be. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from caa_cli import checks
from caa_cli.errors import UsageError
from caa_cli.names import ATTACKS, GUMBEL, RADIAL, REFINEMENTS, SAMPLE_SCHEDULES, STAGED, SURROGATES

# By attack, with their defaults. A default of None depends on the image or on --iterations, or stands for a search.
ATTACK_SETTINGS: dict[str, dict[str, Any]] = {
    "caa": {
        "overshoot": 1.05,
        "undershoot": 0.95,
        "step_min": 0.1,
        "step_max": 0.25,
        "patience": 8,
        "tolerance": 0.005,
        "sample_schedule": STAGED,
        "refine": RADIAL,
        "rivals": 1,
        "surrogate": "log-ratio",
        "temperature": 0.01,
    },
    "caa-newton": {"newton_rivals": 4, "newton_steps": 30, "newton_memory": 0.75},
    "pgd": {"pgd_epsilon": 20 / 255},
    "cw": {
        "cw_constant": None,
        "cw_initial_constant": 1e-3,
        "cw_binary_search_steps": 9,
        "cw_learning_rate": None,
        "cw_confidence": 0.0,
    },
    "deepfool": {"deepfool_overshoot": 0.02, "deepfool_candidates": 10},
    "autoattack": {
        "autoattack_radius": None,
        "autoattack_minimise": False,
        "autoattack_searches": 10,
        "autoattack_rho": 0.75,
    },
    "ddn": {"ddn_initial_norm": 1.0, "ddn_gamma": 0.05},
    "fmn": {"fmn_alpha_init": 1.0, "fmn_alpha_final": 0.01, "fmn_gamma_init": 0.05, "fmn_gamma_final": 0.001},
    "alma": {
        "alma_init_lr_distance": 0.1,
        "alma_lr_reduction": 0.01,
        "alma_alpha": None,
        "alma_mu_init": 1.0,
        "alma_rho_init": 1.0,
        "alma_check_steps": 10,
        "alma_tau": 0.95,
        "alma_gamma": 1.2,
        "alma_logit_tolerance": 1e-4,
    },
}
_COUNTS = {"rivals", "newton_rivals", "newton_steps", "cw_binary_search_steps", "autoattack_searches"}
_COUNTS |= {"alma_check_steps"}
_POSITIVE = {"temperature", "step_min", "step_max", "overshoot", "pgd_epsilon", "cw_initial_constant"}
_POSITIVE |= {"cw_learning_rate", "autoattack_radius", "ddn_initial_norm", "fmn_alpha_init", "fmn_alpha_final"}
_POSITIVE |= {"alma_init_lr_distance", "alma_lr_reduction", "alma_mu_init", "alma_rho_init", "alma_gamma"}
_AT_LEAST_ZERO = {"cw_constant", "cw_confidence", "deepfool_overshoot", "alma_logit_tolerance"}
_SHARES = {
    "newton_memory",
    "ddn_gamma",
    "fmn_gamma_init",
    "fmn_gamma_final",
    "autoattack_rho",
    "alma_alpha",
    "alma_tau",
}


def prefix(attack: str) -> str:
    """What the names of an attack's settings begin with, so that none is another's; those of `caa` have nothing."""
    return attack.removeprefix("caa-") + "_"


def foreign(attack: str) -> set[str]:
    """The settings that only other attacks have."""
    return {name for other, settings in ATTACK_SETTINGS.items() if other != attack for name in settings}


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """The settings of all attacks. Those of the attack that is run get their defaults, the others stay None."""

    attack: str = "caa"
    overshoot: float | None = None
    undershoot: float | None = None
    step_min: float | None = None
    step_max: float | None = None
    patience: int | None = None
    tolerance: float | None = None
    sample_schedule: str | None = None
    refine: str | None = None
    rivals: int | None = None
    surrogate: str | None = None
    temperature: float | None = None
    newton_rivals: int | None = None
    newton_steps: int | None = None
    newton_memory: float | None = None
    pgd_epsilon: float | None = None
    cw_constant: float | None = None
    cw_initial_constant: float | None = None
    cw_binary_search_steps: int | None = None
    cw_learning_rate: float | None = None
    cw_confidence: float | None = None
    deepfool_overshoot: float | None = None
    deepfool_candidates: int | None = None
    autoattack_radius: float | None = None
    autoattack_minimise: bool | None = None
    autoattack_searches: int | None = None
    autoattack_rho: float | None = None
    ddn_initial_norm: float | None = None
    ddn_gamma: float | None = None
    fmn_alpha_init: float | None = None
    fmn_alpha_final: float | None = None
    fmn_gamma_init: float | None = None
    fmn_gamma_final: float | None = None
    alma_init_lr_distance: float | None = None
    alma_lr_reduction: float | None = None
    alma_alpha: float | None = None
    alma_mu_init: float | None = None
    alma_rho_init: float | None = None
    alma_check_steps: int | None = None
    alma_tau: float | None = None
    alma_gamma: float | None = None
    alma_logit_tolerance: float | None = None

    def attack_settings(self) -> dict[str, Any]:
        """The settings of the attack that is run."""
        return {name: getattr(self, name) for name in ATTACK_SETTINGS[self.attack]}

    def check_attack(self) -> None:
        """Fills in the defaults. Raises UsageError for a wrong value, and for another attack's setting."""
        checks.one_of("--attack", self.attack, ATTACKS)
        own = ATTACK_SETTINGS[self.attack]
        for attack, settings in ATTACK_SETTINGS.items():
            for name in settings:
                if attack != self.attack and getattr(self, name) is not None:
                    raise UsageError(
                        f"{checks.flag(name)} is a setting of the attack {attack}, not of {self.attack}",
                        f"leave it out; {self.attack} has " + ", ".join(map(checks.flag, own)),
                    )
        for name, default in own.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)  # frozen from here on
        for name, value in self.attack_settings().items():
            _check(checks.flag(name), name, value)
        if self.deepfool_candidates is not None and self.deepfool_candidates < 2:
            raise UsageError(
                f"--deepfool-candidates must be at least 2, not {self.deepfool_candidates}",
                "the label is one of them",
            )
        if self.attack == "caa":
            self._check_caa()

    def _check_caa(self) -> None:
        values = self.attack_settings()
        checks.one_of("--surrogate", values["surrogate"], SURROGATES)
        checks.one_of("--sample-schedule", values["sample_schedule"], SAMPLE_SCHEDULES)
        checks.one_of("--refine", values["refine"], REFINEMENTS)
        checks.not_negative("--patience", values["patience"])
        if not 0 <= values["tolerance"] < 1:
            raise UsageError(f"--tolerance must be at least 0 and below 1, not {values['tolerance']:g}")
        if values["step_max"] < values["step_min"]:
            raise UsageError(f"--step-max {values['step_max']:g} is below --step-min {values['step_min']:g}")
        if values["overshoot"] < 1:
            raise UsageError(
                f"--overshoot must be at least 1, not {values['overshoot']:g}",
                "below 1 a step would stay where no adversarial example can be",
            )
        if not 0 < values["undershoot"] <= 1:
            raise UsageError(f"--undershoot must be above 0 and at most 1, not {values['undershoot']:g}")
        if values["rivals"] > 1 and values["surrogate"] == GUMBEL:
            raise UsageError(
                f"--rivals {values['rivals']} goes with --surrogate log-ratio only",
                "the Gumbel surrogate follows whichever class leads; leave one of the two out",
            )


def _check(option: str, name: str, value: Any) -> None:
    if value is None:
        return
    if name in _COUNTS:
        checks.at_least_one(option, value)
    if name in _POSITIVE:
        checks.positive(option, value)
    if name in _AT_LEAST_ZERO:
        checks.at_least_zero(option, value)
    if name in _SHARES and not 0 < value < 1:
        raise UsageError(f"{option} must lie between 0 and 1, not {value:g}", f"leave {option} out for its default")
