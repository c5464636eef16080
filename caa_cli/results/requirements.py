"""Requirements such as `median_radius>=1.5` (`--require`), and whether a result meets them."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from caa_cli.errors import UsageError
from caa_cli.results.fields import NUMBER, Fields

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
# The last operator separates field and number: an attack's label may contain operators, a number can't.
_FORM = re.compile(rf"(.+?)\s*({'|'.join(OPERATORS)})\s*([^<>=!]*)")
# What people write for an operator.
_MEANT = {"=": "==", "=>": ">=", "=<": "<="}


@dataclass(frozen=True)
class Requirement:
    """A comparison of a result's field with a bound. text: as the user wrote it."""

    text: str
    field: str
    operator: str
    bound: float

    @staticmethod
    def parse(text: str) -> Requirement:
        """Parse FIELD OPERATOR NUMBER. Raises UsageError."""
        text = " ".join(text.split())
        match = _FORM.fullmatch(text)
        if match is None or match[1].endswith("="):
            meant = re.fullmatch(r"([^<>=!].*?)\s*(=[<>]?)\s*([^<>=!]+)", text)
            hint = f"for instance --require 'median_radius>=1.5'; the operators are {' '.join(OPERATORS)}"
            if meant is not None:
                hint = (
                    f"did you mean '{meant[1]}{_MEANT[meant[2]]}{meant[3]}'? the operators are {' '.join(OPERATORS)}"
                )
            raise UsageError(f"--require {text!r} is not of the form FIELD>=NUMBER", hint)
        field, compared, number = match.groups()
        if not re.fullmatch(f"[+-]?{NUMBER}", number) or not math.isfinite(float(number)):
            share = f"a share is a number from 0 to 1: --require '{field}{compared}0.5'"
            hint = share if "%" in number else "for instance 1.5, or 1e-3"
            raise UsageError(f"--require {text!r}: {number!r} is not a number", hint)
        return Requirement(text, field, compared, float(number))

    def is_met_by(self, value: float | None) -> bool:
        """Whether the value meets the bound; a field without a value meets none, `!=` included."""
        return value is not None and OPERATORS[self.operator](value, self.bound)


@dataclass(frozen=True)
class Verdict:
    """Whether a result meets a requirement. reason: why the result can't be judged, where that is so."""

    requirement: Requirement
    value: float | None
    met: bool
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.requirement.text} (found {self._shown_value}{self.reason and f': {self.reason}'})"

    def to_json(self) -> dict[str, str | float | bool | None]:
        return {"requirement": self.requirement.text, "found": self.value, "met": self.met}

    @property
    def _shown_value(self) -> str:
        """The value with four digits, or more where rounding would contradict the verdict."""
        if self.value is None:
            return "null"
        if isinstance(self.value, int):
            return str(self.value)
        met = self.requirement.is_met_by(self.value)
        shown = (f"{self.value:.{digits}g}" for digits in range(4, 18))
        return next(text for text in shown if self.requirement.is_met_by(float(text)) == met)


def judge(requirements: Iterable[Requirement], fields: Fields) -> list[Verdict]:
    """Judge each requirement. A result about no image meets none."""
    verdicts = []
    for requirement in requirements:
        value = fields.value(requirement.field)
        met = not fields.is_empty and requirement.is_met_by(value)
        verdicts.append(Verdict(requirement, value, met, fields.reason if fields.is_empty else ""))
    return verdicts
