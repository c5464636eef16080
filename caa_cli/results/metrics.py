"""The figures that compare attacks over the same images: the paper's Table 1, and those that failures can't improve.

A failed attack on an image is an attack with an infinite radius: `overall` medians count it as such, and so do
optimality and the shares against the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import mean
from typing import Any

from caa_cli.config.schema import SMALLEST
from caa_cli.results.optimality import optimalities
from caa_cli.results.pairwise import Column, against
from caa_cli.results.records import ATTACKED, AttackRecord, median_of

NEAR_BEST = 1.01  # times the smallest radius

Records = Mapping[int, AttackRecord]


@dataclass(frozen=True)
class Columns:
    """One attack's values, one for each eligible image in their order; None where there is no value.

    The figure of the same name is the mean (shares and rates) or the median of a column.  best_share: 1 where this
    attack's radius is the smallest, divided among ties.  overall_…: infinite for a failure.  common_…: where every
    attack succeeded.  Without a value in any image for the reference: what `pairwise` holds against it.
    """

    success_rate: Column
    best_share: Column
    near_best_share: Column
    median_radius: Column
    median_percent: Column
    overall_median_radius: Column
    overall_median_percent: Column
    common_median_radius: Column
    common_median_percent: Column
    nearer_share: Column
    farther_share: Column
    tied_share: Column
    median_radius_ratio: Column
    median_radius_difference: Column


@dataclass(frozen=True)
class Figures:
    """One attack's row; radii L2 in [0, 1] pixel units, shares of the eligible images, None for no value.

    success_rate: verified.  best_share: images where no other attack's verified radius is smaller, divided among
    ties.  near_best_share: images where it is within 1% of the smallest.  median_radius, median_percent: over this
    attack's successes.  overall_…: over all eligible images, a failure at infinity; infinite where at most half of
    them are successes.  common_…: over the `common` images on which every attack succeeded.  optimality: see there.
    nearer_share, farther_share, tied_share: images by whose radius is smaller, this attack's or the reference's.
    median_radius_ratio, median_radius_difference: to the reference's radius, over the `both_attacked` images on which
    both succeeded.  seconds: the median of an image.  forward, backward: mean model evaluations of an image.
    """

    success_rate: float | None
    best_share: float | None
    near_best_share: float | None
    median_radius: float | None
    median_percent: float | None
    overall_median_radius: float | None
    overall_median_percent: float | None
    common: int
    common_median_radius: float | None
    common_median_percent: float | None
    optimality: float | None
    nearer_share: float | None
    farther_share: float | None
    tied_share: float | None
    both_attacked: int | None
    median_radius_ratio: float | None
    median_radius_difference: float | None
    seconds: float | None
    forward: float | None
    backward: float | None

    @property
    def evaluations(self) -> float | None:
        """Forward and backward together."""
        return None if self.forward is None or self.backward is None else self.forward + self.backward


def columns(attacks: Sequence[Records], eligible: Sequence[int], reference: int = 0) -> list[Columns]:
    """The values of each attack.

    attacks: records by index, which hold all the eligible images.  reference: the position of the reference attack.
    """
    radii = [[_radius(records[index]) for index in eligible] for records in attacks]
    least = [min((r for r in image if r is not None), default=None) for image in zip(*radii, strict=True)]
    ties = [sum(r == m for r in image) for image, m in zip(zip(*radii, strict=True), least, strict=True)]
    everyone = [None not in image for image in zip(*radii, strict=True)]
    results = []
    for position, (records, row) in enumerate(zip(attacks, radii, strict=True)):
        images = [records[index] for index in eligible]
        percent = [None if r is None else i.percent_over_certified for r, i in zip(row, images, strict=True)]
        results.append(
            Columns(
                success_rate=tuple(float(r is not None) for r in row),
                best_share=tuple(
                    1.0 / tied if r is not None and r == m else 0.0
                    for r, m, tied in zip(row, least, ties, strict=True)
                ),
                near_best_share=tuple(
                    float(r is not None and m is not None and r <= NEAR_BEST * m)
                    for r, m in zip(row, least, strict=True)
                ),
                median_radius=tuple(row),
                median_percent=tuple(percent),
                overall_median_radius=_with_failures(row, [True] * len(row)),
                overall_median_percent=_with_failures(percent, [_is_certified(image) for image in images]),
                common_median_radius=_where(everyone, row),
                common_median_percent=_where(everyone, percent),
                **against(row, radii[reference], is_reference=position == reference),
            )
        )
    return results


def figures(attacks: Sequence[Records], eligible: Sequence[int], reference: int = 0) -> list[Figures]:
    """One row for each attack, in their order; arguments as of `columns`."""
    rows = []
    values = columns(attacks, eligible, reference)
    areas = optimalities([column.overall_median_radius for column in values])
    for position, (records, column, area) in enumerate(zip(attacks, values, areas, strict=True)):
        mine = [records[index] for index in eligible]
        rows.append(
            Figures(
                **_of_columns(column),
                common=_count(column.common_median_radius),
                optimality=area,
                both_attacked=None if position == reference else _count(column.median_radius_difference),
                seconds=median_of([record.seconds for record in mine]),
                forward=_mean([record.forward_evaluations for record in mine]),
                backward=_mean([record.backward_evaluations for record in mine]),
            )
        )
    return rows


def _of_columns(column: Columns) -> dict[str, Any]:
    """The figures that have a column of their name."""
    values = {f.name: getattr(column, f.name) for f in fields(column)}
    return {name: (median_of if "median" in name else _mean)(given) for name, given in values.items()}


def _radius(record: AttackRecord) -> float | None:
    return record.radius if record.outcome == ATTACKED else None


def _is_certified(record: AttackRecord) -> bool:
    """Whether the image has a certified radius that a percentage can be of."""
    return (record.certified_radius or 0.0) >= SMALLEST


def _with_failures(values: Sequence[float | None], chosen: Sequence[bool]) -> Column:
    """The values with infinity for those that are missing, and None where not chosen."""
    return tuple((math.inf if v is None else v) if yes else None for v, yes in zip(values, chosen, strict=True))


def _where(chosen: Sequence[bool], values: Sequence[float | None]) -> Column:
    return tuple(value if yes else None for yes, value in zip(chosen, values, strict=True))


def _count(values: Iterable[float | None]) -> int:
    return sum(value is not None for value in values)


def _mean(values: Iterable[float | None]) -> float | None:
    existing = [value for value in values if value is not None]
    return mean(existing) if existing else None
