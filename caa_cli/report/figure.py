"""The pictures of a run (extra: plot)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caa_cli.errors import CaaError, UsageError
from caa_cli.report.escapes import drawn
from caa_cli.results.certificates import CertifyRecord
from caa_cli.results.records import ATTACKED, FAILED, AttackRecord
from caa_cli.results.store.files import write_atomically
from caa_cli.results.store.images import Image
from caa_cli.results.store.ownership import mark

MOST_EXAMPLES = 8


def check_figure(path: Path, option: str = "--figure") -> None:
    """Raises CaaError where matplotlib is missing, UsageError where it can't write such a file."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError as error:
        raise CaaError(f"{option} needs matplotlib", "pip install matplotlib") from error
    if path.suffix.lstrip(".").lower() not in FigureCanvasAgg.get_supported_filetypes():
        raise UsageError(f"{option} {path}: no picture format is called {path.suffix!r}", "name a .png, .pdf or .svg")


def draw_examples(
    path: Path, original: Callable[[int], Image], adversarial: Mapping[int, Image], records: Sequence[AttackRecord]
) -> None:
    """Draw one column for each example: original, adversarial image, difference.

    Images: (channels, height, width) in [0, 1], by index. Shows the first verified successes whose images were kept.
    Raises OSError if `path` can't be written.
    """
    from matplotlib.figure import Figure

    shown = [record for record in records if record.outcome == ATTACKED and record.index in adversarial][
        :MOST_EXAMPLES
    ]
    columns = max(len(shown), 1)
    figure = Figure(figsize=(1.5 * columns + 0.9, 5.4), dpi=130, layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set_visible(False)
    for row, name in enumerate(("original", "adversarial", "difference")):
        axes[row, 0].set_ylabel(name, fontsize=10)
    for column, record in enumerate(shown):
        clean, attacked = original(record.index), adversarial[record.index]
        axes[0, column].imshow(pixels(clean))
        axes[0, column].set_title(f"image {record.index}\nclass {record.prediction}", fontsize=9)
        axes[1, column].imshow(pixels(attacked))
        axes[1, column].set_title(f"class {record.adversarial_class}", fontsize=9)
        difference = (attacked - clean).mean(axis=0)
        axes[2, column].imshow(difference_colours(difference, float(np.abs(difference).max())))
        axes[2, column].set_title(f"L2 {record.radius:.2f}", fontsize=9)
        axes[2, column].set_xlabel(f"certified {record.certified_radius:.2f}", fontsize=8)
    if not shown:
        axes[0, 0].set_title("nothing was attacked")
    write_figure(path, figure)


def pixels(image: Image) -> Any:
    """Convert (channels, height, width) in [0, 1] to (height, width, 3), grey to three equal channels."""
    return np.broadcast_to(np.clip(image.transpose(1, 2, 0), 0.0, 1.0), (*image.shape[1:], 3))


def difference_colours(difference: Any, scale: float) -> Any:
    """Convert (height, width) to colours (height, width, 3): red for positive, white for 0, blue for negative values.

    scale: the absolute value that gets the full colour.
    """
    from matplotlib import colormaps

    return colormaps["RdBu_r"](0.5 + 0.5 * difference / (scale or 1.0))[..., :3]


def draw_certified_accuracy(path: Path, records: Sequence[CertifyRecord], title: str) -> None:
    """Draw certified accuracy against the radius. Raises OSError if `path` can't be written."""
    from matplotlib.figure import Figure

    records = [record for record in records if record.outcome != FAILED]  # a failure is not evidence about the model
    radii = np.sort([record.radius or 0.0 for record in records if record.certified_at(0.0)])
    # The share of examples certified at r falls by one example just beyond each radius.
    shares = np.arange(len(radii), 0, -1) / max(len(records), 1)
    figure = Figure(figsize=(6.4, 4.2), dpi=130, layout="constrained")
    axis = figure.subplots()
    if len(radii):
        axis.step(np.r_[0.0, radii], np.r_[shares[0], shares], where="pre", color="#2166ac")
        axis.vlines(radii[-1], 0.0, shares[-1], color="#2166ac")
    axis.set(xlabel="L2 radius", ylabel="certified accuracy", ylim=(0.0, 1.0), title=drawn(title))
    axis.set_xlim(left=0.0)
    axis.grid(alpha=0.3)
    write_figure(path, figure)


# The metadata field of each format that takes the mark.
_MARKED_IN = {"png": "Comment", "svg": "Description", "pdf": "Subject", "eps": "Creator", "ps": "Creator"}


def write_figure(path: Path, figure: Any, fingerprint: str = "") -> None:
    """Write a figure in the format of the file name, with caa's mark (see `ownership`). Raises OSError."""
    buffer, form = BytesIO(), path.suffix.lstrip(".").lower()
    metadata = {_MARKED_IN[form]: mark(fingerprint)} if form in _MARKED_IN else None
    figure.savefig(buffer, format=form, metadata=metadata)
    write_atomically(path, buffer.getvalue())
