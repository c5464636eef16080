"""The figures that compare attacks over the same images: the paper's Table 1, and those over common successes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from caa_cli.results.records import ATTACKED, AttackRecord

NEAR_BEST = 1.01  # times the smallest radius

Records = Mapping[int, AttackRecord]
Column = tuple[float | None, ...]


@dataclass(frozen=True)
class Columns:
    """One attack's values, one for each eligible image in their order; None where there is no value.

    best: 1 where this attack's radius is the smallest, divided among ties.  common_…: where every attack succeeded.
    """

    success: Column
    best: Column
    near_best: Column
    radius: Column
    percent: Column
    common_radius: Column
    common_percent: Column


@dataclass(frozen=True)
class Figures:
    """One attack's row; radii L2 in [0, 1] pixel units, shares of the eligible images, None for no value.

    success_rate: verified.  best_share: images where no other attack's verified radius is smaller, divided among
    ties.  near_best_share: images where it is within 1% of the smallest.  median_radius, median_percent: over this
    attack's successes.  common_…: over the `common` images on which every attack succeeded.
    seconds: the median of an image.  forward, backward: mean model evaluations of an image.
    """

    success_rate: float | None
    best_share: float | None
    near_best_share: float | None
    median_radius: float | None
    median_percent: float | None
    common: int
    common_median_radius: float | None
    common_median_percent: float | None
    seconds: float | None
    forward: float | None
    backward: float | None


def columns(attacks: Sequence[Records], eligible: Sequence[int]) -> list[Columns]:
    """The values of each attack. attacks: records by index, which hold all the eligible images."""
    radii = [[_radius(records[index]) for index in eligible] for records in attacks]
    least = [min((r for r in image if r is not None), default=None) for image in zip(*radii, strict=True)]
    ties = [sum(r == m for r in image) for image, m in zip(zip(*radii, strict=True), least, strict=True)]
    everyone = [None not in image for image in zip(*radii, strict=True)]
    found = []
    for records, row in zip(attacks, radii, strict=True):
        percent = [
            None if r is None else records[index].percent_over_certified
            for r, index in zip(row, eligible, strict=True)
        ]
        found.append(
            Columns(
                success=tuple(float(r is not None) for r in row),
                best=tuple(
                    1.0 / tied if r is not None and r == m else 0.0
                    for r, m, tied in zip(row, least, ties, strict=True)
                ),
                near_best=tuple(
                    float(r is not None and m is not None and r <= NEAR_BEST * m)
                    for r, m in zip(row, least, strict=True)
                ),
                radius=tuple(row),
                percent=tuple(percent),
                common_radius=_where(everyone, row),
                common_percent=_where(everyone, percent),
            )
        )
    return found


def figures(attacks: Sequence[Records], eligible: Sequence[int]) -> list[Figures]:
    """One row for each attack, in their order."""
    rows = []
    for records, column in zip(attacks, columns(attacks, eligible), strict=True):
        mine = [records[index] for index in eligible]
        rows.append(
            Figures(
                success_rate=_mean(column.success),
                best_share=_mean(column.best),
                near_best_share=_mean(column.near_best),
                median_radius=_median(column.radius),
                median_percent=_median(column.percent),
                common=sum(value is not None for value in column.common_radius),
                common_median_radius=_median(column.common_radius),
                common_median_percent=_median(column.common_percent),
                seconds=_median([record.seconds for record in mine]),
                forward=_mean([record.forward_evaluations for record in mine]),
                backward=_mean([record.backward_evaluations for record in mine]),
            )
        )
    return rows


def _radius(record: AttackRecord) -> float | None:
    return record.radius if record.outcome == ATTACKED else None


def _where(chosen: Sequence[bool], values: Sequence[float | None]) -> Column:
    return tuple(value if yes else None for yes, value in zip(chosen, values, strict=True))


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return mean(found) if found else None


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return median(found) if found else None
