"""The picture of one attack (extra: plot): examples before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from caa_cli.config.pictures import MOST_EXAMPLES
from caa_cli.report.figure import (
    EmptyPictureError,
    difference_colours,
    difference_scale,
    draw_scale,
    figure_style,
    pixels,
    wrapped,
    write_figure,
)
from caa_cli.results.class_names import ClassNames, class_name
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.results.store.images import Image


def draw_examples(
    path: Path,
    original: Callable[[int], Image],
    adversarial: Mapping[int, Image],
    records: Sequence[AttackRecord],
    names: ClassNames,
) -> None:
    """Draw one column for each example: original, adversarial image, difference, all differences on one scale.

    Images: (channels, height, width) in [0, 1], by index. Shows the first verified successes whose images were kept.
    Raises EmptyPictureError where there are none, and OSError if `path` can't be written.
    """
    from matplotlib.figure import Figure

    shown = [record for record in records if record.outcome == ATTACKED and record.index in adversarial]
    shown = shown[:MOST_EXAMPLES]
    if not shown:
        raise EmptyPictureError("no image was attacked")
    columns = len(shown)
    differences = [(adversarial[record.index] - original(record.index)).mean(axis=0) for record in shown]
    scale = difference_scale(differences)
    with figure_style():
        figure = Figure(figsize=(0.8 * columns + 0.75, 3.3), layout="constrained")
        axes = figure.subplots(3, columns + 1, squeeze=False, width_ratios=[*[1.0] * columns, 0.09])
        for axis in axes[:, :-1].flat:
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
        for row, name in enumerate(("original", "adversarial", "difference")):
            axes[row, 0].set_ylabel(name)
            axes[row, -1].set_axis_off()
        for column, (record, difference) in enumerate(zip(shown, differences, strict=True)):
            above, middle, below = axes[:, column]
            above.imshow(pixels(original(record.index)))
            above.set_title(f"image {record.index}\n{_name(record.prediction, names)}", fontsize=7)
            middle.imshow(pixels(adversarial[record.index]))
            middle.set_title(_name(record.adversarial_class, names), fontsize=7)
            below.imshow(difference_colours(difference, scale))
            below.set_title(f"L2 {record.radius:.2f}", fontsize=7)
            below.set_xlabel(f"certified {record.certified_radius:.2f}", fontsize=6)
        axes[2, -1].set_axis_on()
        draw_scale(axes[2, -1], scale, "vertical")
        write_figure(path, figure)


def _name(number: int | None, names: ClassNames) -> str:
    return wrapped(class_name(number, names), 14)
