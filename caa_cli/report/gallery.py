"""A gallery of adversarial images and their originals, as a picture and as a part of the report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caa_cli.report.escapes import drawn, markup
from caa_cli.report.figure import difference_colours, pixels, write_figure
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.results.store.images import Image


@dataclass(frozen=True)
class Shown:
    """One image under every attack. clean: (channels, height, width) in [0, 1], None where it is not available.

    adversarial: one image for each attack, None where it failed or its image was not kept.
    """

    clean: Image | None
    adversarial: tuple[Image | None, ...]
    records: tuple[AttackRecord, ...]

    @property
    def differences(self) -> list[Image | None]:
        return [None if self.clean is None or image is None else image - self.clean for image in self.adversarial]

    @property
    def caption(self) -> list[str]:
        record = self.records[0]
        return [f"image {record.index}, class {record.prediction}", f"certified {record.certified_radius or 0.0:.2f}"]

    def captions(self) -> list[list[str]]:
        """The lines below each adversarial image: its radius and its class, or why there is none."""
        return [
            [
                f"L2 {record.radius:.2f}, class {record.adversarial_class}",
                *([] if image is not None else ["not kept"]),
            ]
            if record.outcome == ATTACKED
            else [record.outcome.replace("_", " ")]
            for record, image in zip(self.records, self.adversarial, strict=True)
        ]

    def colours(self) -> list[Any]:
        """The differences as colours, (height, width, 3), all on one scale."""
        found = [None if d is None else d.mean(axis=0) for d in self.differences]
        scale = max((float(np.abs(d).max()) for d in found if d is not None), default=0.0)
        return [None if d is None else difference_colours(d, scale) for d in found]


@dataclass(frozen=True)
class Gallery:
    """labels: of the attacks, one for each column.  notes: what is missing, and why."""

    labels: tuple[str, ...]
    rows: tuple[Shown, ...]
    notes: tuple[str, ...] = ()


def draw_gallery(path: Path, gallery: Gallery, title: str, fingerprint: str = "") -> None:
    """Draw two rows for each image: the image and its adversarial images, and the perturbations. Raises OSError."""
    from matplotlib.figure import Figure

    columns, rows = 1 + len(gallery.labels), 2 * max(len(gallery.rows), 1)
    figure = Figure(figsize=(1.5 * columns + 0.2, 1.5 * rows + 0.6), dpi=110, layout="constrained")
    figure.suptitle("\n".join(map(drawn, [title, *gallery.notes])), fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for position, shown in enumerate(gallery.rows):
        above, below = axes[2 * position], axes[2 * position + 1]
        captions = [shown.caption, *shown.captions()]
        if position == 0:
            headings = ["clean", *(drawn(label).replace(":", "\n") for label in gallery.labels)]
            depth = 1 + max(map(len, captions))
            captions = [
                [name, *[""] * (depth - len(text)), *text] for name, text in zip(headings, captions, strict=True)
            ]
        for axis, image, text in zip(above, [shown.clean, *shown.adversarial], captions, strict=True):
            axis.set_title("\n".join(text), fontsize=8)
            _show(axis, None if image is None else pixels(image))
        for axis, colours in zip(below[1:], shown.colours(), strict=True):
            _show(axis, colours)
    write_figure(path, figure, fingerprint)


def _show(axis: Any, image: Any) -> None:
    if image is not None:
        axis.imshow(image)


def gallery_html(gallery: Gallery) -> str:
    """The gallery as an HTML table with embedded images."""
    notes = "".join(f"<p>{markup(note)}.</p>" for note in gallery.notes)
    if not gallery.rows:
        return notes
    head = "".join(f'<th scope="col">{_breakable(name)}</th>' for name in ("clean", *gallery.labels))
    rows = []
    for shown in gallery.rows:
        cells = [_cell(shown.caption, [shown.clean if shown.clean is None else pixels(shown.clean)])]
        cells += [
            _cell(text, [None if image is None else pixels(image), colours])
            for text, image, colours in zip(shown.captions(), shown.adversarial, shown.colours(), strict=True)
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'{notes}<table class="gallery"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _cell(caption: Sequence[str], images: Sequence[Any]) -> str:
    shown = "".join(
        f'<img alt="{name}" src="data:image/png;base64,{_png(image)}"/>'
        for name, image in zip(("image", "perturbation"), images, strict=False)
        if image is not None
    )
    return f"<td>{shown}<small>{'<br/>'.join(map(markup, caption))}</small></td>"


def _png(image: Any) -> str:
    from matplotlib.image import imsave

    buffer = BytesIO()
    imsave(buffer, np.round(255 * image).astype(np.uint8), format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _breakable(label: str) -> str:
    return markup(label).replace(":", ":<wbr/>")
