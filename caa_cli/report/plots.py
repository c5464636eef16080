"""The pictures of a comparison (extra: plot)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path
from pkgutil import resolve_name
from statistics import median
from typing import Any

import numpy as np

from caa_cli.config.pictures import PICTURES
from caa_cli.report.colours import INK, styles
from caa_cli.report.escapes import drawn
from caa_cli.report.figure import COLUMN, RADIUS, EmptyPictureError, figure_style, is_wide, wrapped, write_figure
from caa_cli.results.comparison import Comparison
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.results.shards.run_results import AttackResult

# Letters of a legend's line, at most.
_LEGEND_WIDTH = 52


def proportion(axis: Any, comparison: Comparison) -> None:
    """Draw the share of eligible images attacked within a radius, and the certified bound."""
    if not comparison.eligible:
        raise EmptyPictureError("no image is eligible")
    count = len(comparison.eligible)
    certified = np.sort(comparison.certified)
    furthest = max([r.radius or 0.0 for a in comparison.attacks for r in comparison.records(a)], default=0.0)
    right = 1.05 * max(furthest, *certified, 0.1)
    beyond = 100 * right  # other models beside this one may need a wider axis
    _steps(axis, certified, count, beyond, label="certified bound", color=INK, linestyle=":", linewidth=1.6)
    for attack, style in _styles(comparison):
        radii = np.sort([record.radius or 0.0 for record in _successes(comparison, attack)])
        _steps(axis, radii, count, beyond, label=_legend(attack), color=style["color"], linestyle=style["linestyle"])
    axis.set(xlabel=RADIUS, ylabel="share of eligible images attacked", ylim=(0.0, 1.02), xlim=(0.0, right))


def excess(axis: Any, comparison: Comparison) -> None:
    """Draw the excess over the certified radius against the share of votes of the clean image's class."""
    from matplotlib.ticker import MaxNLocator

    _check_attacked(comparison)
    for attack, style in _styles(comparison):
        points = [
            (record.expectation, record.percent_over_certified)
            for record in _successes(comparison, attack)
            if record.expectation is not None and record.percent_over_certified is not None
        ]
        if points:
            _scatter(axis, points, _legend(attack), style)
    if not axis.lines:
        raise EmptyPictureError("no attacked image has a class expectation and a certified radius")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set(xlabel="share of the clean image's votes for its class", ylabel="L2 radius, % over certified")


def evaluations(axis: Any, comparison: Comparison, relative: bool | None = None) -> None:
    """Draw radius against model evaluations, forward and backward; large marks are at the medians.

    relative: images differ far more than attacks do, so several attacks are shown by the excess over the smallest
    radius that any of them found for the image.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    _check_attacked(comparison)
    several = len(comparison.attacks) > 1 if relative is None else relative
    least = {
        index: min((attack.records[index].radius or np.inf for attack in comparison.attacks), default=np.inf)
        for index in comparison.eligible
    }
    for attack, style in _styles(comparison):
        points = [
            (
                record.forward_evaluations + record.backward_evaluations,
                100.0 * ((record.radius or 0.0) / least[record.index] - 1.0) if several else record.radius or 0.0,
            )
            for record in _successes(comparison, attack)
        ]
        if points:
            _scatter(axis, points, _legend(attack), style)
            middle = median(x for x, _ in points), median(y for _, y in points)
            axis.plot(*middle, style["marker"], color=style["color"], markersize=8, markeredgecolor=INK)
    axis.set(xlabel="model evaluations, forward and backward", ylabel=RADIUS)
    if several:
        axis.set(ylabel="L2 radius, % over smallest found")
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(bottom=-0.1)
        axis.yaxis.set_major_formatter("{x:g}")
    # The limits of a linear axis have a margin, which begins below zero where the numbers are far apart.
    drawn_here = [other.dataLim for other in axis.get_shared_x_axes().get_siblings(axis)]
    few, many = min(limits.x0 for limits in drawn_here), max(limits.x1 for limits in drawn_here)
    if is_wide(few, many):
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter("{x:,.0f}")


def write_picture(path: Path, name: str, comparison: Comparison, title: str) -> None:
    """Draw one of PICTURES, dark on white.

    Raises EmptyPictureError where it would be empty, and OSError if `path` can't be written.
    """
    with ink():
        write_figure(path, _figure(name, comparison, title), comparison.fingerprint)


def inline_svg(name: str, comparison: Comparison) -> str:
    """One of PICTURES as an <svg> element in the text colour of the page. Raises EmptyPictureError."""
    text = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with ink({"svg.fonttype": "none", "svg.hashsalt": name}):
        _figure(name, comparison, "").savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Several pictures share a page, so ids need a prefix.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)


def _figure(name: str, comparison: Comparison, title: str) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.2, color=INK)
    axis.set_axisbelow(True)
    resolve_name(PICTURES[name].draws)(axis, comparison)
    axis.set_title(drawn(title))
    rows = draw_legend(figure)
    figure.set_size_inches(COLUMN, 2.5 + 0.13 * rows)
    return figure


def draw_legend(figure: Any) -> int:
    """Draw the legend below the axes, where it hides no curve; returns its number of lines."""
    labels = [label for axis in figure.axes for label in axis.get_legend_handles_labels()[1]]
    if not labels:
        return 0
    lines = [line for label in labels for line in label.split("\n")]
    columns = min(4, len(labels), max(1, 66 // (8 + max(map(len, lines)))))  # as many as the longest line allows
    figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return len(lines) if columns == 1 else math.ceil(len(labels) / columns)


def _legend(attack: AttackResult) -> str:
    return wrapped(attack.label, _LEGEND_WIDTH)


def ink(others: dict[str, str] | None = None) -> AbstractContextManager[None]:
    """The style of pictures, with axes and text in the ink colour."""
    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    return figure_style(**dict.fromkeys(names, INK), **(others or {}))


def _check_attacked(comparison: Comparison) -> None:
    """Raises EmptyPictureError where no attack succeeded."""
    if not any(_successes(comparison, attack) for attack in comparison.attacks):
        raise EmptyPictureError("no image was attacked" if comparison.eligible else "no image is eligible")


def _styles(comparison: Comparison) -> list[tuple[AttackResult, dict[str, Any]]]:
    return list(zip(comparison.attacks, styles([attack.attack for attack in comparison.attacks]), strict=True))


def _successes(comparison: Comparison, attack: AttackResult) -> list[AttackRecord]:
    return [record for record in comparison.records(attack) if record.outcome == ATTACKED]


def _steps(axis: Any, radii: Any, count: int, right: float, **style: Any) -> None:
    """Draw an empirical distribution function up to this radius."""
    shares = np.arange(1, len(radii) + 1) / count
    axis.step(np.r_[0.0, radii, right], np.r_[0.0, shares, shares[-1:] if len(radii) else 0.0], where="post", **style)


def _scatter(axis: Any, points: Sequence[tuple[Any, Any]], label: str, style: dict[str, Any]) -> None:
    marks = {"markersize": 4, "alpha": 0.8, "markeredgecolor": INK, "markeredgewidth": 0.4}
    axis.plot(*zip(*points, strict=True), style["marker"], color=style["color"], label=label, **marks)
