"""A normalisation by name, or by its numbers."""

from __future__ import annotations

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.ranges import OneOf, flag
from caa_cli.errors import UsageError

Numbers = tuple[float, ...] | None


def mean_and_std(name: str | None, mean: Numbers, std: Numbers, *, prefix: str = "") -> tuple[Numbers, Numbers]:
    """(mean, std) of --normalisation, or of --mean and --std; None where not given. Raises UsageError for both.

    prefix: of the options' names.
    """
    if name is None:
        return mean, std
    options = [flag(prefix + option) for option in ("normalisation", "mean", "std")]
    OneOf(NORMALISATIONS).check(options[0], name)
    if (mean, std) != (None, None):
        raise UsageError("{} and {} or {} say the same thing twice".format(*options), "give a name, or the numbers")
    return NORMALISATIONS[name]
