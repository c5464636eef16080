"""The records of `caa certify`, their summary, and Cohen's log format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean, median, stdev

from caa_cli.config.schema import Length, Natural, Seconds
from caa_cli.results.records import ABSTAINED, FAILED, Jsonable, Record

CERTIFIED = "certified"
NOT_CERTIFIED = "not_certified"
UNDECIDED = "undecided"
RADIUS_STEP = 0.25
MOST_RADII = 1000


@dataclass(frozen=True)
class CertifyRecord(Record):
    """One example. radius: certified L2 radius in [0, 1] pixel units, 0 if abstained.

    outcome: `certified` or `abstained`; with --radius `certified`, `not_certified` or
    `undecided`; `failed`.  correct: the prediction is the label, whatever the radius.  votes_top: of the prediction,
    out of `samples`.  seconds: this example's share of the time.
    """

    OUTCOMES = frozenset({CERTIFIED, NOT_CERTIFIED, UNDECIDED, ABSTAINED, FAILED})

    prediction: Natural | None = None
    radius: Length | None = None
    correct: bool = False
    votes_top: Natural | None = None
    samples: Natural = 0
    abstentions: Natural = 0
    evaluations: Natural = 0
    seconds: Seconds = 0.0
    error: str | None = None

    def required(self) -> tuple[str, ...]:
        return ("radius", "prediction") if self.outcome == CERTIFIED else ()

    def certified_at(self, radius: float) -> bool:
        """Whether the prediction is right and certified at this radius."""
        return self.correct and self.outcome == CERTIFIED and (self.radius or 0.0) >= radius


@dataclass(frozen=True)
class CertifySummary(Jsonable):
    """certified_accuracy: the share of examples that are right and certified, by radius ("0.00", "0.25", …; with
    --radius that one).

    average_certified_radius: the mean radius, 0 where wrong or abstained (ACR; Zhai et al., 2020), with its
    standard error.  median_radius: the median of the same radii.  None for a run with --radius.
    """

    examples: int
    certified_accuracy: dict[str, float]
    average_certified_radius: float | None
    average_certified_radius_error: float | None
    median_radius: float | None
    abstained: int
    undecided: int
    failed: int
    samples: int
    mean_samples: float | None
    evaluations: int
    seconds: float


def summarise_certificates(
    records: Sequence[CertifyRecord], samples: int, seconds: float, radius: float | None = None
) -> CertifySummary:
    """Summarise a run. samples: the budget of each image.  radius: that of --radius, if it was given."""
    finished = [record for record in records if record.outcome != FAILED]
    radii = [record.radius or 0.0 if record.certified_at(0.0) else 0.0 for record in finished]
    if radius is None:
        steps = min(math.floor(max(radii, default=0.0) / RADIUS_STEP) + 2, MOST_RADII)
        grid = [step * RADIUS_STEP for step in range(steps)]
    else:
        grid = [radius]
    average = mean(radii) if radii and radius is None else None
    error = stdev(radii) / math.sqrt(len(radii)) if len(radii) > 1 and radius is None else None
    return CertifySummary(
        examples=len(records),
        certified_accuracy={name_of(r): certified_share(finished, r) for r in grid} if finished else {},
        average_certified_radius=average,
        average_certified_radius_error=error,
        median_radius=median(radii) if radii and radius is None else None,
        abstained=sum(record.outcome == ABSTAINED for record in records),
        undecided=sum(record.outcome == UNDECIDED for record in records),
        failed=len(records) - len(finished),
        samples=samples,
        mean_samples=mean(record.samples for record in finished) if finished else None,
        evaluations=sum(record.evaluations for record in records),
        seconds=seconds,
    )


def name_of(radius: float) -> str:
    """The radius as `certified_accuracy` has it: with two digits behind the point, or with all that it takes."""
    short = f"{radius:.2f}"
    return short if float(short) == radius else str(radius)


def certified_share(records: Sequence[CertifyRecord], radius: float) -> float:
    """The share of examples that are right and certified at this radius."""
    return sum(record.certified_at(radius) for record in records) / len(records)


COHEN_COLUMNS = "idx\tlabel\tpredict\tradius\tcorrect\ttime"


def cohen_log(records: Sequence[CertifyRecord]) -> str:
    """A tab-separated log with the columns of locuslab/smoothing's certify.py, for scripts that read its logs.

    As in its logs, an abstention has class -1 and radius 0.
    """
    lines = [COHEN_COLUMNS]
    for record in records:
        if record.outcome == FAILED:
            continue
        abstained = record.outcome == ABSTAINED
        lines.append(
            f"{record.index}\t{record.label}\t{-1 if abstained else record.prediction}\t{record.radius or 0.0:.6g}\t"
            f"{int(record.correct and not abstained)}\t{timedelta(seconds=record.seconds)}"
        )
    return "\n".join(lines) + "\n"
