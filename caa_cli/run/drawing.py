"""Pictures that would be empty are left out, with a warning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caa_cli.display import Display
from caa_cli.report.figure import EmptyPictureError


@contextmanager
def drawing(option: str, path: Path, display: Display) -> Iterator[None]:
    """A context for drawing the picture of an option: where there is nothing to draw, no file is left at `path`."""
    try:
        yield
    except EmptyPictureError as reason:
        path.unlink(missing_ok=True)  # an earlier picture would pass for this one
        display.warn(f"{option} {path} is not drawn: {reason}")
