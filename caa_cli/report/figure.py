"""What all pictures share (extra: plot): their size and fonts, images as colours, and how they are written."""

from __future__ import annotations

import shutil
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caa_cli.display import visible
from caa_cli.errors import CaaError, UsageError
from caa_cli.report.escapes import drawn
from caa_cli.results.store.files import write_atomically
from caa_cli.results.store.images import Image
from caa_cli.results.store.ownership import mark

# Inches: of a column and of the whole text of a paper in two columns, so that pictures are included unscaled.
COLUMN, PAGE = 3.5, 7.2
RADIUS = "L2 radius (pixels in [0, 1])"

_STYLE: dict[str, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "lines.linewidth": 1.3,
    "savefig.dpi": 300,
    "text.usetex": False,  # names are escaped for matplotlib alone
    # TrueType, which publishers take, in place of Type 3, which they refuse.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
}


class EmptyPictureError(Exception):
    """A picture would be empty. Its text says why, for a user."""


def check_figure(path: Path, option: str = "--figure") -> None:
    """Raises CaaError where matplotlib, or TeX for .pgf, is missing, UsageError where it can't write such a file."""
    try:
        from matplotlib import rcParams
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ModuleNotFoundError as error:
        raise CaaError(f"{option} needs matplotlib", "pip install matplotlib") from error
    if path.suffix.lstrip(".").lower() not in FigureCanvasAgg.get_supported_filetypes():
        what = f"no picture format is called {path.suffix!r}" if path.suffix else "its name has no picture format"
        raise UsageError(f"{option} {path}: {what}", "name a .png, .pdf or .svg")
    if path.suffix.lower() == ".pgf" and shutil.which(rcParams["pgf.texsystem"]) is None:
        raise CaaError(f"{option} needs {rcParams['pgf.texsystem']} for {path}", "name a .png, .pdf or .svg")


@contextmanager
def figure_style(**others: Any) -> Iterator[None]:
    """A context with the fonts of a picture, for drawing and for writing, which creates some parts of it.

    A letter that the fonts lack is a box in the picture, which says it.
    """
    import matplotlib as mpl

    settings: Any = {**_STYLE, **others}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


def pixels(image: Image) -> Any:
    """Convert (channels, height, width) in [0, 1] to (height, width, 3), grey to three equal channels."""
    return np.broadcast_to(np.clip(image.transpose(1, 2, 0), 0.0, 1.0), (*image.shape[1:], 3))


def difference_scale(differences: Sequence[Any]) -> float:
    """The largest absolute value in any of these (height, width), 0 where there is none."""
    return max((float(np.abs(difference).max()) for difference in differences), default=0.0)


def difference_colours(difference: Any, scale: float) -> Any:
    """Convert (height, width) to colours (height, width, 3): red for positive, white for 0, blue for negative values.

    scale: the absolute value that gets the full colour.
    """
    from matplotlib import colormaps

    return colormaps["RdBu_r"](0.5 + 0.5 * difference / (scale or 1.0))[..., :3]


def scale_labels(scale: float) -> tuple[str, str, str]:
    """The numbers at the ends and in the middle of the colours of a difference."""
    return f"−{scale:.2g}", "0", f"+{scale:.2g}"


def draw_scale(axis: Any, scale: float, orientation: str) -> None:
    """Draw the colours of a difference with their numbers."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    most = scale or 1.0
    colours = ScalarMappable(Normalize(-most, most), "RdBu_r")
    bar = axis.figure.colorbar(colours, cax=axis, orientation=orientation)
    bar.set_ticks([-most, 0.0, most], labels=scale_labels(most))
    bar.ax.tick_params(labelsize=6, length=2)
    bar.outline.set_linewidth(0.5)


def wrapped(text: str, width: int) -> str:
    """A text for matplotlib in lines of at most this many letters, broken at spaces and after colons if possible."""
    lines = textwrap.wrap(visible(text).replace(":", ": "), width)
    return "\n".join(drawn(line.replace(": ", ":")) for line in lines)


def is_wide(least: float, most: float) -> bool:
    """Whether numbers between these span so much that a logarithmic axis is clearer."""
    return least > 0 and most >= 8 * least


# The metadata field of each format that takes the mark.
_MARKED_IN = {"png": "Comment", "svg": "Description", "pdf": "Subject", "eps": "Creator", "ps": "Creator"}


def write_figure(path: Path, figure: Any, fingerprint: str = "") -> None:
    """Write a figure in the format of the file name, with caa's mark (see `ownership`). Raises OSError."""
    buffer, form = BytesIO(), path.suffix.lstrip(".").lower()
    metadata = {_MARKED_IN[form]: mark(fingerprint)} if form in _MARKED_IN else None
    with figure_style():
        figure.savefig(buffer, format=form, metadata=metadata)
    write_atomically(path, buffer.getvalue())
