"""The record of each example of a run, and the summary over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, Self

from caa_cli.config.schema import SMALLEST, Length, Natural, SchemaError, Seconds, Share, dataclass_from

SCHEMA_VERSION = 1

ATTACKED = "attacked"
NOT_FOUND = "not_found"
NOT_VERIFIED = "not_verified"
MISCLASSIFIED = "misclassified"
ABSTAINED = "abstained"
FAILED = "failed"
LABEL_IS_TARGET = "label_is_target"
# Examples whose clean smoothed prediction is right and confident: rates are over these.
ELIGIBLE = (ATTACKED, NOT_FOUND, NOT_VERIFIED)


def finite(value: Any) -> Any:
    """The value as strict JSON has it: None for NaN and infinity, the median of an attack that often fails."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Jsonable:
    """A dataclass that a document holds."""

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        return {name: finite(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Record(Jsonable):
    """One example of a run, as the journal and the document hold it. The types say what a file may hold."""

    OUTCOMES: ClassVar[frozenset[str]]

    index: Natural
    label: Natural
    outcome: str

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Check and convert a JSON object; unknown fields are ignored. Raises SchemaError."""
        record = dataclass_from(value, cls)
        if record.outcome not in cls.OUTCOMES:
            raise SchemaError(f"is {record.outcome[:40]!r}, not one of {', '.join(sorted(cls.OUTCOMES))}", "outcome")
        for name in record.required():
            if getattr(record, name) is None:
                raise SchemaError(f"is missing, and the outcome is {record.outcome}", name)
        return record

    def required(self) -> tuple[str, ...]:
        """The names of the fields that can't be None with this outcome."""
        return ()


@dataclass(frozen=True)
class AttackRecord(Record):
    """One example of an attack run. Lengths are L2 in [0, 1] pixel units; None where there is no such value.

    target: the class that the attack was after (`--target`); None: any but the label.
    radius: verified on fresh noise.  radius_search: the nearest point that was adversarial on the search's noise.
    abstentions: clean noise samples whose logits held a NaN. lost_gradients: steps without a usable gradient.
    last_try_samples: that the last of `verify_tries` drew, the one that passed if any did; None in older results.
    expectation: the share of the certificate's clean votes that the prediction has (the largest class expectation).
    seconds: this example's share of the wall time, over all stages.  error: why it failed.
    """

    OUTCOMES = frozenset({*ELIGIBLE, MISCLASSIFIED, ABSTAINED, FAILED, LABEL_IS_TARGET})

    prediction: Natural | None = None
    expectation: Share | None = None
    certified_radius: Length | None = None
    radius: Length | None = None
    radius_search: Length | None = None
    adversarial_class: Natural | None = None
    target: Natural | None = None
    iterations: Natural = 0
    forward_evaluations: Natural = 0
    backward_evaluations: Natural = 0
    lost_gradients: Natural = 0
    verify_tries: Natural = 0
    last_try_samples: Natural | None = None
    abstentions: Natural = 0
    seconds: Seconds = 0.0
    error: str | None = None

    def required(self) -> tuple[str, ...]:
        attacked = ("radius", "adversarial_class") if self.outcome == ATTACKED else ()
        return (*(("certified_radius",) if self.eligible else ()), *attacked)

    @property
    def eligible(self) -> bool:
        return self.outcome in ELIGIBLE

    @property
    def percent_over_certified(self) -> float | None:
        """100·(radius / certified − 1): the excess over the certified radius, which no attack can undercut."""
        if self.radius is None or self.certified_radius is None or self.certified_radius < SMALLEST:
            return None
        return 100.0 * (self.radius / self.certified_radius - 1.0)


@dataclass(frozen=True)
class AttackSummary(Jsonable):
    """The paper's Table 1 for one attack.

    median_radius, median_percent_over_certified: over the verified successes; other medians: over eligible images.
    """

    examples: int
    eligible: int
    attacked: int
    success_rate: float | None
    median_radius: float | None
    median_percent_over_certified: float | None
    median_certified_radius: float | None
    median_seconds: float | None
    forward_evaluations: int
    backward_evaluations: int
    below_certified: int
    outcomes: dict[str, int]
    seconds: float


def summarise(records: Sequence[AttackRecord], seconds: float) -> AttackSummary:
    """Summarise a run. seconds: the wall time of the whole run."""
    eligible = [record for record in records if record.eligible]
    attacked = [record for record in eligible if record.outcome == ATTACKED]
    outcomes: dict[str, int] = {}
    for record in records:
        outcomes[record.outcome] = outcomes.get(record.outcome, 0) + 1
    return AttackSummary(
        examples=len(records),
        eligible=len(eligible),
        attacked=len(attacked),
        success_rate=len(attacked) / len(eligible) if eligible else None,
        median_radius=median_of(record.radius for record in attacked),
        median_percent_over_certified=median_of(record.percent_over_certified for record in attacked),
        median_certified_radius=median_of(record.certified_radius for record in eligible),
        median_seconds=median_of(record.seconds for record in eligible),
        forward_evaluations=sum(record.forward_evaluations for record in records),
        backward_evaluations=sum(record.backward_evaluations for record in records),
        below_certified=sum((record.percent_over_certified or 0.0) < 0.0 for record in attacked),
        outcomes=outcomes,
        seconds=seconds,
    )


def median_of(values: Iterable[float | None]) -> float | None:
    """The median of the values that exist; None where there is none."""
    existing = [value for value in values if value is not None]
    return median(existing) if existing else None
