"""The training methods: a dataclass of settings and a row of `METHODS` each. Nothing else in the package lists them.

Methods share settings by name: `--draws` is one option, for whichever method is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from caa_cli.config.choices import INNER_ATTACKS, MSE, OBJECTIVES, STABILITY
from caa_cli.config.ranges import MOST_STEPS, Count, NotNegative, OneOf, Positive
from caa_cli.config.settings import Setting, Settings, Shown, check_each, filled, refuse_foreign, settings_of

_MOST_DRAWS = 10_000
_SEVERAL = Count(2, _MOST_DRAWS, hint="it compares several noises of an image: use at least --draws 2")
_DRAWS = "noises per image."


@dataclass(frozen=True, kw_only=True)
class MethodSettings(Settings):
    """The settings of one training method."""

    def rate_share(self, epoch: int) -> float:
        """The factor of the learning rate in an epoch, counted from 0."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Gaussian(MethodSettings):
    """Cross-entropy under noise (Lecuyer et al., 2019; Cohen et al., 2019)."""

    draws: Annotated[int, Count(most=_MOST_DRAWS), _DRAWS] = 1


@dataclass(frozen=True, kw_only=True)
class Stability(MethodSettings):
    """Li et al. (2019)."""

    weight: Annotated[float, NotNegative(), "λ, of the term that it adds."] = 2.0


@dataclass(frozen=True, kw_only=True)
class Consistency(MethodSettings):
    """Jeong and Shin (2020)."""

    draws: Annotated[int, _SEVERAL, _DRAWS] = 2
    weight: Annotated[float, NotNegative()] = 10.0
    eta: Annotated[float, NotNegative(), "weight of the entropy."] = 0.5


@dataclass(frozen=True, kw_only=True)
class Macer(MethodSettings):
    """Zhai et al. (2020)."""

    draws: Annotated[int, _SEVERAL, _DRAWS] = 16
    weight: Annotated[float, NotNegative()] = 12.0
    gamma: Annotated[float, Positive(), "the hinge, in units of σ/2."] = 8.0
    beta: Annotated[float, Positive(), "inverse temperature."] = 16.0
    defer: Annotated[int, Count(0, MOST_STEPS), "epochs before the hinge counts."] = 0


@dataclass(frozen=True, kw_only=True)
class SmoothAdv(MethodSettings):
    """Salman et al. (2019)."""

    draws: Annotated[int, Count(most=_MOST_DRAWS), _DRAWS] = 2
    inner_attack: Annotated[str, OneOf(INNER_ATTACKS), f"{' or '.join(INNER_ATTACKS)}."] = "pgd"
    epsilon: Annotated[float, Positive(), "largest move, L2, pixel units."] = 1.0
    attack_steps: Annotated[int, Count(most=MOST_STEPS), "steps of the attack."] = 10
    warmup: Annotated[int, Count(0, MOST_STEPS), "epochs over which epsilon grows."] = 10


@dataclass(frozen=True, kw_only=True)
class Denoiser(MethodSettings):
    """Denoised smoothing (Salman et al., 2020): a denoiser is trained, in front of a classifier that is not."""

    objective: Annotated[str, OneOf(OBJECTIVES), f"{', '.join(OBJECTIVES)}."] = STABILITY
    mse_epochs: Annotated[int | None, Count(0, MOST_STEPS), Shown("10"), "epochs of mse before the objective."] = None
    tuning_rate: Annotated[float, Positive(1.0), "share of --learning-rate in the epochs after those of mse."] = 0.05
    depth: Annotated[int, Count(2, 1000), "convolutions."] = 17
    width: Annotated[int, Count(most=10_000), "channels between convolutions."] = 64

    def on_pixels(self, epoch: int) -> bool:
        """Whether the loss of an epoch, counted from 0, is the mean squared error."""
        return self.objective == MSE or epoch < self.pixel_epochs

    def rate_share(self, epoch: int) -> float:
        # At the rate that suits mse the objective would first ruin what the denoiser has learnt.
        return self.tuning_rate if self.pixel_epochs and not self.on_pixels(epoch) else 1.0

    @property
    def pixel_epochs(self) -> int:
        """How many epochs come before those of the objective."""
        return 10 if self.mse_epochs is None else self.mse_epochs


@dataclass(frozen=True)
class MethodSpec:
    """settings: a dataclass.  runs: `module:class` of the method, which takes them and has a `loss`.

    denoises: what it trains is a denoiser, not a classifier.
    """

    settings: type[MethodSettings]
    runs: str
    denoises: bool = False


METHODS: dict[str, MethodSpec] = {
    "gaussian": MethodSpec(Gaussian, "caa_cli.training.gaussian:Gaussian"),
    "stability": MethodSpec(Stability, "caa_cli.training.stability:Stability"),
    "consistency": MethodSpec(Consistency, "caa_cli.training.consistency:Consistency"),
    "macer": MethodSpec(Macer, "caa_cli.training.macer:Macer"),
    "smoothadv": MethodSpec(SmoothAdv, "caa_cli.training.smoothadv:SmoothAdv"),
    "denoiser": MethodSpec(Denoiser, "caa_cli.training.denoiser:Denoiser", denoises=True),
}


def declared(method: str) -> dict[str, Setting]:
    """The settings of a method by name."""
    return {setting.name: setting for setting in settings_of(METHODS[method].settings)}


def every_setting() -> dict[str, list[str]]:
    """Every setting's name, with the methods that have it."""
    methods_by_setting: dict[str, list[str]] = {}
    for method in METHODS:
        for name in declared(method):
            methods_by_setting.setdefault(name, []).append(method)
    return methods_by_setting


def chosen(method: str, given: Mapping[str, Any]) -> MethodSettings:
    """The method's settings from values by name; None is a value that was not given.

    Raises UsageError for an unknown method, and for a setting that it does not have.
    """
    OneOf(METHODS).check("--method", method)
    refuse_foreign("method", method, {name: declared(name) for name in METHODS}, given)
    return filled(METHODS[method].settings, given)


def check(method: str, settings: MethodSettings) -> None:
    """Raises UsageError for a value out of its range."""
    if type(settings) is not METHODS[method].settings:
        raise TypeError(f"{type(settings).__name__} has no settings of {method}")
    check_each(settings)


def flat(settings: MethodSettings) -> dict[str, Any]:
    """The values of all methods' settings, as results record them; None for those that this method lacks."""
    return {name: getattr(settings, name, None) for name in every_setting()}
