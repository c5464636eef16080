"""The pictures of a comparison (extra: plot)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from caa_cli.config.pictures import PICTURES
from caa_cli.config.settings import load
from caa_cli.report.colours import INK, styles
from caa_cli.report.escapes import drawn
from caa_cli.report.figure import write_figure
from caa_cli.results.comparison import Comparison
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.results.shards.joining import AttackResult


def proportion(axis: Any, comparison: Comparison) -> None:
    """Draw the share of eligible images attacked within a radius, and the certified bound."""
    count = max(len(comparison.eligible), 1)
    certified = np.sort(comparison.certified)
    furthest = max([r.radius or 0.0 for a in comparison.attacks for r in comparison.records(a)], default=0.0)
    right = 1.05 * max(furthest, *certified, 0.1)
    _steps(axis, certified, count, right, label="certified bound", color=INK, linestyle=":", linewidth=1.6)
    for attack, style in _styles(comparison):
        radii = np.sort([record.radius or 0.0 for record in _successes(comparison, attack)])
        _steps(
            axis, radii, count, right, label=drawn(attack.label), color=style["color"], linestyle=style["linestyle"]
        )
    axis.set(xlabel="L2 radius", ylabel="attack proportion", ylim=(0.0, 1.02), xlim=(0.0, right))


def excess(axis: Any, comparison: Comparison) -> None:
    """Draw the excess over the certified radius against the share of votes of the clean image's class."""
    for attack, style in _styles(comparison):
        points = [
            (record.expectation, record.percent_over_certified)
            for record in _successes(comparison, attack)
            if record.expectation is not None and record.percent_over_certified is not None
        ]
        if points:
            _scatter(axis, points, drawn(attack.label), style)
    if not axis.lines:
        axis.text(0.5, 0.5, "no class expectation is recorded", transform=axis.transAxes, ha="center")
    axis.set(xlabel="largest class expectation of the clean image", ylabel="% over the certified radius")


def evaluations(axis: Any, comparison: Comparison) -> None:
    """Draw radius against model evaluations, forward and backward; large marks are at the medians.

    Images differ far more than attacks do, so several attacks are shown by the excess over the smallest radius that
    any of them found for the image.
    """
    from matplotlib.ticker import MaxNLocator

    several = len(comparison.attacks) > 1
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
            _scatter(axis, points, drawn(attack.label), {**style, "alpha": 0.3})
            middle = median(x for x, _ in points), median(y for _, y in points)
            axis.plot(*middle, style["marker"], color=style["color"], markersize=11, markeredgecolor=INK)
    axis.set(xlabel="model evaluations (forward and backward)", ylabel="L2 radius")
    if several:
        axis.set(ylabel="radius, % above the smallest found")
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(bottom=-0.1)
        axis.yaxis.set_major_formatter("{x:g}")
    low, high = axis.get_xlim()
    if low > 0 and high > 8 * low:
        axis.set_xscale("log")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.xaxis.set_major_formatter("{x:,.0f}")


def write_picture(path: Path, name: str, comparison: Comparison, title: str) -> None:
    """Draw one of PICTURES, dark on white. Raises OSError if `path` can't be written."""
    with _ink():
        write_figure(path, _figure(name, comparison, title), comparison.fingerprint)


def inline_svg(name: str, comparison: Comparison) -> str:
    """One of PICTURES as an <svg> element in the text colour of the page."""
    text = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with _ink({"svg.fonttype": "none", "svg.hashsalt": name}):
        _figure(name, comparison, "").savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Several pictures share a page, so ids need a prefix.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)


def _figure(name: str, comparison: Comparison, title: str) -> Any:
    from matplotlib.figure import Figure

    columns = min(4, max(1, 80 // (8 + max(len(drawn(label)) for label in comparison.labels))))
    rows = math.ceil(len(comparison.labels) / columns)
    figure = Figure(figsize=(6.4, 3.8 + 0.2 * rows), dpi=130, layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.2, color=INK)
    axis.set_axisbelow(True)
    load(PICTURES[name].draws)(axis, comparison)
    axis.set_title(drawn(title))
    # The legend is below the axes, where it hides no curve, in as many columns as its longest label allows.
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    return figure


def _ink(others: dict[str, str] | None = None) -> Any:
    """A context with the ink colour, for drawing and for writing, which creates some parts of a figure."""
    import matplotlib as mpl

    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = {**dict.fromkeys(names, INK), **(others or {})}
    return mpl.rc_context(settings)


def _styles(comparison: Comparison) -> list[tuple[AttackResult, dict[str, Any]]]:
    return list(zip(comparison.attacks, styles([attack.attack for attack in comparison.attacks]), strict=True))


def _line(style: dict[str, Any]) -> dict[str, Any]:
    return {name: style[name] for name in ("color", "linestyle")}


def _successes(comparison: Comparison, attack: AttackResult) -> list[AttackRecord]:
    return [record for record in comparison.records(attack) if record.outcome == ATTACKED]


def _steps(axis: Any, radii: Any, count: int, right: float, **style: Any) -> None:
    """Draw an empirical distribution function up to the right edge."""
    shares = np.arange(1, len(radii) + 1) / count
    axis.step(np.r_[0.0, radii, right], np.r_[0.0, shares, shares[-1:] if len(radii) else 0.0], where="post", **style)


def _scatter(axis: Any, points: Sequence[tuple[Any, Any]], label: str, style: dict[str, Any]) -> None:
    axis.plot(
        [x for x, _ in points],
        [y for _, y in points],
        style["marker"],
        color=style["color"],
        markersize=4,
        alpha=style.get("alpha", 0.6),
        label=label,
    )
