"""Checks of settings. Each raises UsageError, which names the option and all that is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

from caa_cli.errors import UsageError

# More than any run can take, and few enough for every product of two of them to fit into 64 bits.
MOST_SAMPLES = 10**9
MOST_STEPS = 10**6
# Larger numbers would overflow float32 once they are multiplied or squared.
LARGEST = 1e9


def flag(name: str) -> str:
    """The option of a setting."""
    return f"--{name.replace('_', '-')}"


def setting_of(option: str) -> str:
    """The setting of an option."""
    return option.removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class Range:
    """A range of numbers. above, below: exclude its low or high end.  hint: what to do instead."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False
    hint: str | None = None

    def __contains__(self, value: float) -> bool:
        high_enough = value > self.low if self.above else value >= self.low
        return high_enough and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {_shown(self.low)}"
        high = f"{'below' if self.below else 'at most'} {_shown(self.high)}"
        return low if self.high == math.inf else f"{low} and {high}"

    def check(self, option: str, value: float) -> None:
        if value not in self:
            raise UsageError(
                f"{option} must be {self}, not {value}", self.hint or f"leave {option} out for its default"
            )


@dataclass(frozen=True)
class ZeroOr:
    """0, or a number in the range."""

    range: Range

    def check(self, option: str, value: float) -> None:
        if value != 0 and value not in self.range:
            raise UsageError(f"{option} must be 0, or {self.range}, not {value}", self.range.hint)


def _shown(end: float) -> str:
    return f"{end:,}" if isinstance(end, int) else f"{end:g}"


def Count(least: int = 1, most: int = MOST_SAMPLES, hint: str | None = None) -> Range:  # noqa: N802
    """A range of whole numbers, both ends included."""
    return Range(least, most, hint=hint)


def Positive(most: float = LARGEST) -> Range:  # noqa: N802
    """The range of numbers above 0."""
    return Range(0, most, above=True)


def NotNegative() -> Range:  # noqa: N802
    """The range of numbers from 0 on."""
    return Range(0, LARGEST)


def Between(low: float, high: float) -> Range:  # noqa: N802
    """A range of numbers, both ends excluded."""
    return Range(low, high, above=True, below=True)


def did_you_mean(value: object, names: Iterable[str]) -> str:
    """The question for the nearest of the names, with a space behind it; empty where none is near."""
    by_case = {name.casefold(): name for name in names}
    near = get_close_matches(str(value).casefold(), by_case, 1)
    return f"did you mean {by_case[near[0]]}? " if near else ""


@dataclass(frozen=True)
class OneOf:
    """One of the names that a registry has when a value is checked."""

    names: Iterable[str]

    def check(self, option: str, value: str) -> None:
        if value not in self.names:
            near = did_you_mean(value, self.names)
            raise UsageError(f"{option} {value!r} is not known", f"{near}use one of: {', '.join(self.names)}")


@dataclass(frozen=True)
class Each:
    """Several numbers, each in the range."""

    range: Range

    def check(self, option: str, values: Iterable[float]) -> None:
        for value in values:
            self.range.check(option, value)


@dataclass(frozen=True)
class FileName:
    """A path that ends in a file name, and is not `-`, which elsewhere means stdout."""

    def check(self, option: str, path: Path) -> None:
        if str(path) == "-":
            json = "; --json prints the result on stdout" if option == "--output" else ""
            raise UsageError(f"{option} - names no file", f"for instance {option} results/{option[2:]}{json}")
        if not path.name:
            raise UsageError(f"{option} '{path}' names no file", f"for instance {option} results/{option[2:]}")


@dataclass(frozen=True)
class NameOf(FileName):
    """The name of a file that is of one format, whatever it is called: not the name of another format.

    suffix: that of its format.
    """

    suffix: str
    OTHERS: ClassVar = frozenset(
        ".npy .npz .pt .pth .pkl .h5 .hdf5 .mat .zip .png .jpg .svg .pdf .csv .md .tex .docx".split()  # noqa: SIM905
    )

    def check(self, option: str, path: Path) -> None:
        super().check(option, path)
        if path.suffix.lower() in self.OTHERS:
            raise UsageError(
                f"{option} {path} would be no {path.suffix} file: what it writes is {self.suffix}",
                f"{option} {path.with_suffix(self.suffix)}",
            )


# What --save-adversarial writes.
SAFETENSORS = NameOf(".safetensors")


@dataclass(frozen=True)
class Word:
    """A name that goes into labels, legends and the names of files; a sweep adds :KEY=VALUE to it.

    taken: names that mean something else.
    """

    taken: Iterable[str] = ()

    def check(self, option: str, value: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}(:[a-z][a-z_-]*=[^:]+)*", value):
            raise UsageError(
                f"{option} {value!r} is not a plain word", "use letters, digits, and . _ - between them: at most 60"
            )
        if value in self.taken:
            raise UsageError(f"{option} {value!r} is the name of an attack", "choose another name")


# Settings of several subcommands.
SIGMA = Range(1e-9, 1000.0, hint="pixels lie in [0, 1]: published models have a σ between 0.1 and 1")
ALPHA = Range(1e-12, 0.5, hint="it is the probability of error allowed an image; the paper uses 0.005")
IMAGE_SIZE = Count(most=10_000)
SEED = Range(0, 2**63 - 1, hint="for instance --seed 0")
MEAN, STD = Each(Range(-LARGEST, LARGEST)), Each(Positive())
