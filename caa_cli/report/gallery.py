"""A gallery of adversarial images and their originals, as a picture and as a part of the report."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caa_cli.report.escapes import breakable, markup
from caa_cli.report.figure import (
    EmptyPictureError,
    difference_colours,
    difference_scale,
    draw_scale,
    figure_style,
    pixels,
    scale_labels,
    wrapped,
    write_figure,
)
from caa_cli.results.class_names import ClassNames, class_name
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.results.store.images import Image


@dataclass(frozen=True)
class GalleryRow:
    """One image under every attack. clean: (channels, height, width) in [0, 1], None where it is not available.

    adversarial: one image for each attack, None where it failed or its image was not kept.  names: of the classes.
    """

    clean: Image | None
    adversarial: tuple[Image | None, ...]
    records: tuple[AttackRecord, ...]
    names: ClassNames = field(default_factory=dict)

    @property
    def differences(self) -> list[Any]:
        """The perturbations (height, width), means over the channels."""
        return [
            None if self.clean is None or image is None else (image - self.clean).mean(axis=0)
            for image in self.adversarial
        ]

    @property
    def scale(self) -> float:
        """The change that gets the full colour, in all the differences of this row; 0 where there are none."""
        return difference_scale([difference for difference in self.differences if difference is not None])

    def colours(self) -> list[Any]:
        """The differences as colours, (height, width, 3), all on one scale."""
        return [None if d is None else difference_colours(d, self.scale) for d in self.differences]

    @property
    def caption(self) -> list[str]:
        record = self.records[0]
        certified = f"certified {record.certified_radius or 0.0:.2f}"
        return [f"image {record.index}", class_name(record.prediction, self.names), certified]

    def captions(self) -> list[list[str]]:
        """The lines below each adversarial image: its radius and its class, or why there is none."""
        return [
            [
                f"L2 {record.radius:.2f}",
                class_name(record.adversarial_class, self.names),
                *([] if image is not None else ["not kept"]),
            ]
            if record.outcome == ATTACKED
            else [record.outcome.replace("_", " ")]
            for record, image in zip(self.records, self.adversarial, strict=True)
        ]


@dataclass(frozen=True)
class Gallery:
    """labels: of the attacks, one for each column.  notes: what is missing, and why."""

    labels: tuple[str, ...]
    rows: tuple[GalleryRow, ...]
    notes: tuple[str, ...] = ()


def draw_gallery(path: Path, gallery: Gallery, title: str, fingerprint: str = "") -> None:
    """Draw two rows for each image: the image and its adversarial images, and the perturbations.

    Raises EmptyPictureError without an image, and OSError if `path` can't be written.
    """
    from matplotlib.figure import Figure

    if not gallery.rows:
        notes = "; ".join(gallery.notes)
        raise EmptyPictureError(notes[:1].lower() + notes[1:])
    columns, rows = 1 + len(gallery.labels), 2 * len(gallery.rows)
    with figure_style():
        figure = Figure(figsize=(0.95 * columns + 0.1, 1.1 * rows + 0.6), layout="constrained")
        figure.suptitle("\n".join(wrapped(line, 20 * columns) for line in (title, *gallery.notes)), fontsize=8)
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for position, shown in enumerate(gallery.rows):
            shapes = [image.shape for image in (shown.clean, *shown.adversarial) if image is not None]
            for axis in axes[2 * position : 2 * position + 2].flat:  # an empty place is as high as an image
                axis.set_box_aspect(shapes[0][1] / shapes[0][2] if shapes else 1.0)
            above, below = axes[2 * position], axes[2 * position + 1]
            texts = [shown.caption, *shown.captions()]
            captions = ["\n".join(wrapped(line, 18) for line in text) for text in texts]
            if position == 0:
                captions = _below([wrapped(label, 16) for label in ("clean", *gallery.labels)], captions)
            for axis, image, text in zip(above, [shown.clean, *shown.adversarial], captions, strict=True):
                axis.set_title(text, fontsize=6.5)
                _show(axis, None if image is None else pixels(image))
            for axis, colours in zip(below[1:], shown.colours(), strict=True):
                _show(axis, colours)
            if any(colours is not None for colours in shown.colours()):
                below[0].set_title("change of a pixel", fontsize=6.5, y=0.55)
                draw_scale(below[0].inset_axes([0.08, 0.4, 0.84, 0.08]), shown.scale, "horizontal")
        write_figure(path, figure, fingerprint)


def _below(headings: Sequence[str], captions: Sequence[str]) -> list[str]:
    """Each caption below its heading; empty lines between put all headings at one height."""
    deepest = max(text.count("\n") for text in captions)
    return [
        name + "\n" * (2 + deepest - text.count("\n")) + text for name, text in zip(headings, captions, strict=True)
    ]


def _show(axis: Any, image: Any) -> None:
    if image is not None:
        axis.imshow(image)


def gallery_html(gallery: Gallery) -> str:
    """The gallery as an HTML table with embedded images."""
    notes = "".join(f"<p>{markup(note)}.</p>" for note in gallery.notes)
    if not gallery.rows:
        return notes
    head = "".join(f'<th scope="col">{breakable(name)}</th>' for name in ("clean", *gallery.labels))
    rows = "".join(_row(shown, gallery.labels) for shown in gallery.rows)
    return (
        f'{notes}<div class="wide" tabindex="0" role="region" aria-label="Adversarial images">'
        f'<table class="gallery"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(shown: GalleryRow, labels: Sequence[str]) -> str:
    colours = shown.colours()
    image = f"image {shown.records[0].index}"
    clean = "" if shown.clean is None else _img(pixels(shown.clean), f"{image}, unchanged")
    scale = _scale(shown.scale) if any(change is not None for change in colours) else ""
    cells = [_cell(shown.caption, clean, scale)]
    for label, caption, adversarial, change in zip(labels, shown.captions(), shown.adversarial, colours, strict=True):
        pictures = [
            "" if adversarial is None else _img(pixels(adversarial), f"{image} under {label}: {', '.join(caption)}"),
            "" if change is None else _img(change, f"what {label} changed in {image}"),
        ]
        cells.append(_cell(caption, *pictures))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(caption: Sequence[str], *pictures: str) -> str:
    return f"<td>{''.join(pictures)}<small>{'<br/>'.join(map(markup, caption))}</small></td>"


def _scale(scale: float) -> str:
    """The colours of a difference, with numbers, as high as a picture."""
    strip = difference_colours(np.linspace(-1.0, 1.0, 101)[None], 1.0)
    low, middle, high = scale_labels(scale or 1.0)
    bar = _img(strip, f"colours of a change from {low} (blue) to {high} (red)")
    numbers = "".join(f"<span>{number}</span>" for number in (low, middle, high))
    return f'<div class="scale">change of a pixel{bar}<div>{numbers}</div></div>'


def _img(image: Any, alt: str) -> str:
    return f'<img alt="{markup(alt)}" src="data:image/png;base64,{_png(image)}"/>'


def _png(image: Any) -> str:
    from matplotlib.image import imsave

    buffer = BytesIO()
    imsave(buffer, np.round(255 * image).astype(np.uint8), format="png")
    return base64.b64encode(buffer.getvalue()).decode()
