"""Sweeps over one or two settings of an attack, and their picture (extra: plot)."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from caa_cli.config.custom_attack import PREFIX
from caa_cli.report.colours import INK, colour_of
from caa_cli.report.escapes import drawn
from caa_cli.report.figure import EmptyPictureError, is_wide
from caa_cli.results.comparison import Comparison
from caa_cli.results.metrics import Figures
from caa_cli.results.shards.run_results import AttackResult, varying

# The height of a row of success rates at infinite medians, as a share of the axis.
_ROW = 0.13
# Of labels below a picture that is as wide as a column, with the spaces between them.
_CHARACTERS = 40


@dataclass(frozen=True)
class Sweep:
    """keys: the one or two settings that vary.  points: by attack, the values of the keys and the figures."""

    keys: tuple[str, ...]
    points: dict[str, list[tuple[tuple[Any, ...], Figures]]]

    def values(self, position: int) -> list[Any]:
        """The values of one key: numbers sorted, others in the order of the attacks."""
        values = list(dict.fromkeys(key[position] for points in self.points.values() for key, _ in points))
        return sorted(values) if _numbers(values) else values


def find_sweep(comparison: Comparison) -> Sweep | None:
    """Find the settings that vary: one key, or two where there is one attack. None for none or more."""
    groups: dict[str, list[AttackResult]] = {}
    for attack in comparison.attacks:
        groups.setdefault(attack.attack, []).append(attack)
    groups = {name: group for name, group in groups.items() if len(group) > 1}
    keys = tuple(dict.fromkeys(name for group in groups.values() for name in varying(group)))
    if not 1 <= len(keys) <= (2 if len(groups) == 1 else 1):
        return None
    points: dict[str, list[tuple[tuple[Any, ...], Figures]]] = {name: [] for name in groups}
    for attack, row in zip(comparison.attacks, comparison.figures, strict=True):
        if attack.attack in points:
            settings = attack.parts[0].attack_settings
            points[attack.attack].append((tuple(_hashable(settings.get(key)) for key in keys), row))
    return Sweep(keys, points)


def draw_sweep(axis: Any, comparison: Comparison) -> None:
    """Draw a line for each attack where one setting varies, a heat map where two do, with success rates."""
    sweep = find_sweep(comparison)
    if sweep is None:
        raise EmptyPictureError("it shows one setting that varies, or two of one attack, and here it is not so")
    if all(figures.median_radius is None for figures in comparison.figures):
        raise EmptyPictureError("no image was attacked" if comparison.eligible else "no image is eligible")
    if len(sweep.keys) == 1:
        _lines(axis, sweep, comparison)
    else:
        _map(axis, sweep)


def _lines(axis: Any, sweep: Sweep, comparison: Comparison) -> None:
    values = sweep.values(0)
    numeric = _numbers(values)
    furthest: dict[Any, float] = {}
    for key, row in (point for points in sweep.points.values() for point in points):
        furthest[key] = np.fmax(furthest.get(key, np.nan), _finite(row.overall_median_radius))
    infinite_rows = 0  # one for each attack that has infinite medians
    for attack, points in sweep.points.items():
        in_order = sorted(points, key=lambda point: values.index(point[0][0]))
        places = [key[0] if numeric else values.index(key[0]) for key, _ in in_order]
        colour = colour_of(attack)
        for name, style, text in (
            ("overall_median_radius", "o-", f"{drawn(attack)}: all eligible images"),
            ("common_median_radius", "s--", f"{drawn(attack)}: common images"),
        ):
            radii = [_finite(getattr(row, name)) for _, row in in_order]
            if not np.isnan(radii).all():
                axis.plot(places, radii, style, color=colour, label=text, markersize=4)
        axis.update_datalim([(place, 0.0) for place in places], updatey=False)  # those without a point too
        look: dict[str, Any] = {"fontsize": 6, "linespacing": 1.0, "ha": "center"}
        look["color"] = colour if len(sweep.points) > 1 else INK
        infinite = False
        for place, (key, row) in zip(places, in_order, strict=True):
            radius, rate = _finite(row.overall_median_radius), f"{row.success_rate or 0.0:.0%}"
            if np.isnan(radius):
                infinite = True
                above = (place, 0.98 - _ROW * infinite_rows)
                axis.annotate(f"∞\n{rate}", above, xycoords=("data", "axes fraction"), va="top", **look)
            else:
                offset = 6 if radius == furthest.get(key) else -10  # of two attacks, away from the other one
                furthest |= {key: np.nan} if offset > 0 else {}
                axis.annotate(rate, (place, radius), xytext=(0, offset), textcoords="offset points", **look)
        infinite_rows += infinite
    if comparison.eligible:
        certified = float(np.median(comparison.certified))
        axis.axhline(certified, color=INK, linestyle=":", label="median certified radius")
    if sweep.keys == ("attack_sigma",):
        axis.axvline(comparison.config["sigma"], color=INK, linewidth=0.8, label="the true σ")
    if not numeric:
        _label(axis, range(len(values)), [drawn(str(value)) for value in values])
    elif is_wide(values[0], values[-1]):
        axis.set_xscale("log")
        _label(axis, values, [f"{value:g}" for value in values])
        axis.set_xticks([], minor=True)
    axis.margins(x=0.07, y=0.16)
    low, high = axis.get_ylim()
    axis.set_ylim(low, low + (high - low) / (1 - min(_ROW * infinite_rows, 0.6)))
    axis.set(xlabel=_axis_name(sweep.keys[0]), ylabel="median L2 radius (pixels in [0, 1])")


def _map(axis: Any, sweep: Sweep) -> None:
    """Draw the heat map; rows are the first key's values. Where the median is infinite there is the rate alone."""
    (points,) = sweep.points.values()
    rows, columns = sweep.values(0), sweep.values(1)
    radii = np.full((len(rows), len(columns)), np.nan)
    success = {}
    for (row, column), figures in points:
        at = rows.index(row), columns.index(column)
        radii[at] = _finite(figures.overall_median_radius)
        success[at] = figures.success_rate or 0.0
    mesh = axis.pcolormesh(np.ma.masked_invalid(radii), cmap="viridis")
    middle = np.nanmean(radii) if np.isfinite(radii).any() else 0.0
    size = min(8.0, 50.0 / len(columns))
    for (row, column), rate in success.items():
        radius = radii[row, column]
        text = f"{'∞' if np.isnan(radius) else f'{radius:.3f}'}\n{rate:.0%}"
        colour = INK if np.isnan(radius) else "#ffffff" if radius < middle else "#000000"
        axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=colour)
    _label(axis, np.arange(len(columns)) + 0.5, [drawn(str(value)) for value in columns])
    axis.set_yticks(np.arange(len(rows)) + 0.5, [drawn(str(value)) for value in rows])
    axis.set(xlabel=_axis_name(sweep.keys[1]), ylabel=_axis_name(sweep.keys[0]))
    axis.grid(False)
    if np.isfinite(radii).any():
        axis.figure.colorbar(mesh, ax=axis, label="median L2 radius over all eligible images")


def _label(axis: Any, places: ArrayLike, labels: Sequence[str]) -> None:
    """Label the values of the horizontal axis, upright where they would run into one another."""
    axis.set_xticks(places, labels, rotation=90 if sum(map(len, labels)) + 2 * len(labels) > _CHARACTERS else 0)


def _finite(radius: float | None) -> float:
    """The radius; NaN, which is not drawn, for none and for an infinite one."""
    return np.nan if radius is None or np.isinf(radius) else radius


def _axis_name(setting: str) -> str:
    return "attacker's σ" if setting == "attack_sigma" else drawn(setting.removeprefix(PREFIX).replace("_", "-"))


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _hashable(value: Any) -> Hashable:
    return json.dumps(value) if isinstance(value, (list, dict)) else value
