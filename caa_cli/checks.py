"""Checks of single settings: each raises UsageError with the option's name."""

from __future__ import annotations

import math
from collections.abc import Iterable

from caa_cli.errors import UsageError


def flag(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def one_of(option: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise UsageError(f"{option} {value!r} is not known", f"use one of: {', '.join(allowed)}")


def at_least_one(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UsageError(f"{option} must be at least 1, not {value}", f"leave {option} out for its default")


def not_negative(option: str, value: int) -> None:
    if value < 0:
        raise UsageError(f"{option} must not be negative, not {value}", f"leave {option} out for its default")


def positive(option: str, value: float | None) -> None:
    if value is not None and not (value > 0 and math.isfinite(value)):
        raise UsageError(
            f"{option} must be a number above 0, not {value:g}",
            f"leave {option} out, or give for instance {option} 0.5",
        )


def at_least_zero(option: str, value: float | None) -> None:
    if value is not None and not (value >= 0 and math.isfinite(value)):
        raise UsageError(f"{option} must be a number of at least 0, not {value:g}", f"for instance {option} 1")


def fraction(option: str, value: float) -> None:
    if not 0 < value < 1:
        raise UsageError(
            f"{option} must lie between 0 and 1, not {value:g}",
            "it is the probability of error allowed an image; the paper uses 0.005",
        )


def seed_in_range(value: int) -> None:
    if not 0 <= value < 2**63:
        raise UsageError(f"--seed must lie between 0 and 2⁶³ − 1, not {value}", "for instance --seed 0")


def normalisation(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    for value in mean or ():
        if not math.isfinite(value):
            raise UsageError(f"--mean must be a number, not {value:g}")
    for value in std or ():
        positive("--std", value)
