"""A normalisation by name, or by its numbers."""

from __future__ import annotations

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.ranges import OneOf
from caa_cli.errors import UsageError

Numbers = tuple[float, ...] | None


def mean_and_std(name: str | None, mean: Numbers, std: Numbers) -> tuple[Numbers, Numbers]:
    """(mean, std) of --normalisation, or of --mean and --std; None where not given. Raises UsageError for both."""
    if name is None:
        return mean, std
    OneOf(NORMALISATIONS).check("--normalisation", name)
    if (mean, std) != (None, None):
        raise UsageError(
            "--normalisation and --mean or --std say the same thing twice", "give a name, or the numbers"
        )
    return NORMALISATIONS[name]
