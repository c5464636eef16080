"""The pictures of models (extra: plot): attacks on several, and the certified accuracy of one or several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from caa_cli.config.attacks import ATTACKS
from caa_cli.config.pictures import PICTURES
from caa_cli.report.colours import styles
from caa_cli.report.escapes import drawn
from caa_cli.report.figure import COLUMN, PAGE, RADIUS, EmptyPictureError, figure_style, wrapped, write_figure
from caa_cli.report.plots import draw_legend, ink
from caa_cli.results.certificates import CertifyRecord
from caa_cli.results.comparison_of_models import ModelsComparison
from caa_cli.results.records import FAILED

_ACROSS = 3  # pictures in a row


def write_pictures(path: Path, name: str, models: ModelsComparison, title: str) -> None:
    """Draw one of PICTURES for each model.

    Raises EmptyPictureError where all would be empty, and OSError if `path` can't be written.
    """
    from matplotlib.figure import Figure

    with ink():
        figure = Figure(layout="constrained")
        draw_by_model(figure, name, models)
        figure.suptitle(drawn(title), fontsize=9)
        write_figure(path, figure, models.fingerprint)


def draw_by_model(figure: Any, name: str, models: ModelsComparison) -> list[Any]:
    """Draw one of PICTURES for each model on the same scales; returns the axes.

    Where a model has nothing to show the reason is written; EmptyPictureError is raised where none has.
    """
    count = len(models.comparisons)
    columns = min(count, _ACROSS)
    rows = math.ceil(count / columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    axes = list(grid[:count])
    for axis in grid[count:]:
        axis.remove()
    draw, right, shown, reasons = resolve_name(PICTURES[name].draws), 0.0, [], []
    if name == "evaluations":  # in one unit: a model with one attack has no radius beside another attack's
        broken = [comparison for comparison in models.comparisons.values() if comparison.summary["broken_by_any"]]
        draw = partial(draw, relative=all(len(comparison.attacks) > 1 for comparison in broken))
    for axis, comparison in zip(axes, models.comparisons.values(), strict=True):
        try:
            draw(axis, comparison)
            right = max(right, axis.get_xlim()[1])
            shown.append(axis)
        except EmptyPictureError as reason:
            axis.text(0.5, 0.5, wrapped(str(reason), 30), transform=axis.transAxes, ha="center", va="center")
            reasons.append(reason)
    if not shown:
        raise reasons[0]
    below, beside = shown[0].get_xlabel(), shown[0].get_ylabel()
    if any((axis.get_xlabel(), axis.get_ylabel()) != (below, beside) for axis in shown):
        raise EmptyPictureError("it shows all models on the same axes, and here different settings vary")
    for position, (axis, label) in enumerate(zip(axes, models.comparisons, strict=True)):
        axis.set(xlabel=below, ylabel=beside, title=wrapped(label, min(48, 96 // columns)))
        axis.grid(alpha=0.2)
        axis.label_outer()
        if position + columns >= count:  # the last of its column
            axis.tick_params(labelbottom=True)
            # Labels beside each other in a row of three would overlap: the middle one is for all.
            in_middle, alone = position % columns == 1, position == count - 1 and position % columns == 0
            axis.set_xlabel(below if columns < _ACROSS or in_middle or alone else "")
    if not axes[0].get_autoscalex_on():  # the last model drawn has set it
        axes[0].set_xlim(right=right)
    lines = _draw_legends(figure, shown)
    figure.set_size_inches(COLUMN if columns == 1 else PAGE, 0.4 + 2.5 * rows + 0.13 * lines)
    return axes


def _draw_legends(figure: Any, axes: Sequence[Any]) -> int:
    """Draw one legend for all models, or each its own where a label looks different on two; returns the lines below
    the axes."""
    looks: dict[str, tuple[Any, ...]] = {}
    repeated = []
    for axis in axes:
        for artist, label in zip(*axis.get_legend_handles_labels(), strict=True):
            look = (artist.get_color(), artist.get_marker())
            if label in looks:
                repeated.append(artist)
            if looks.setdefault(label, look) != look:
                for each in axes:
                    each.legend(loc="upper left", frameon=False)
                return 0
    for artist in repeated:
        artist.set_label("_")  # what begins so is in no legend
    return draw_legend(figure)


def draw_certified_curves(
    path: Path,
    models: Mapping[str, Sequence[CertifyRecord]],
    title: str,
    fingerprint: str = "",
    radius: float | None = None,
) -> None:
    """Draw the certified accuracy of each model against the radius. models: records by label, "" for no legend.

    radius: that of --radius, if it was given: a curve would say what was not decided.  Raises EmptyPictureError then
    and where nothing is certified, and OSError if `path` can't be written.
    """
    from matplotlib.figure import Figure

    if radius is not None:
        raise EmptyPictureError(f"only the radius {radius} was decided on (--radius), which makes no curve")
    # A failure is not evidence about a model.
    finished = [[record for record in records if record.outcome != FAILED] for records in models.values()]
    radii = [np.sort([r.radius or 0.0 for r in records if r.certified_at(0.0)]) for records in finished]
    if not any(map(len, radii)):
        raise EmptyPictureError("no image is certified")
    colours = [*ATTACKS, *[""] * len(radii)][: len(radii)]  # those of the attacks, and then further ones
    with figure_style():
        figure = Figure(layout="constrained")
        axis = figure.subplots()
        for label, records, mine, style in zip(models, finished, radii, styles(colours), strict=True):
            line = {name: style[name] for name in ("color", "linestyle")}
            axis.step(*certified_curve(mine, len(records)), where="pre", label=wrapped(label, 52) or None, **line)
        axis.set(xlabel=RADIUS, ylabel="certified accuracy", ylim=(0.0, 1.02), title=drawn(title))
        axis.set_xlim(left=0.0)
        axis.grid(alpha=0.3)
        lines = draw_legend(figure)
        figure.set_size_inches(COLUMN, 2.4 + 0.13 * lines)
        write_figure(path, figure, fingerprint)


def certified_curve(radii: ArrayLike, images: int) -> tuple[Any, Any]:
    """The corners (x, y) of certified accuracy by radius. radii: ascending, of those that are right and certified.

    The share certified at r falls by one image just beyond each radius, and ends at 0.
    """
    x = np.asarray(radii, dtype=np.float64)
    counts = np.arange(len(x), -1, -1) / images
    return np.r_[0.0, x, x[-1:]], np.r_[counts[:1], counts] if len(x) else counts
