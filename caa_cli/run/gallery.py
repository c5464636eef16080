"""The images of a comparison's gallery: adversarial ones as the attacks kept them, clean ones from the data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caa_cli.data.datasets import open_dataset
from caa_cli.data.files import ImageFiles
from caa_cli.data.images import spread
from caa_cli.errors import CaaError
from caa_cli.report.gallery import Gallery, GalleryRow
from caa_cli.results.class_names import ClassNames
from caa_cli.results.comparison import Comparison
from caa_cli.results.records import ATTACKED
from caa_cli.results.shards.result_file import ResultFile
from caa_cli.results.shards.run_results import AttackResult
from caa_cli.results.store.images import Image, StoredImages, kept_images

# So that a picture, and what is in memory for it, does not grow with the comparison.
MOST_ROWS, MOST_ATTACKS = 8, 8
_NOT_BROKEN = "No attack broke an image"
_NOT_KEPT = "No adversarial image was kept: --save-adversarial FILE.safetensors keeps them"


def gallery_of(comparison: Comparison) -> Gallery:
    """Images spread over those that some attack broke and kept; never the easiest or the nearest ones."""
    attacks = comparison.attacks[:MOST_ATTACKS]
    labels = tuple(attack.label for attack in attacks)
    kept = [_kept(attack) for attack in attacks]
    at_hand = [index for index in comparison.eligible if any(index in images for images in kept)]
    if not at_hand:
        return Gallery(labels, (), (_why_none(comparison, attacks),))
    chosen = [at_hand[position] for position in spread(len(at_hand), MOST_ROWS)]
    clean, names, notes = _clean(attacks[0].parts[0], chosen)
    left_out = len(comparison.attacks) - len(attacks)
    if left_out:
        notes.append(f"The first {MOST_ATTACKS} attacks; {left_out} more are not shown")
    rows = [
        GalleryRow(
            clean.get(index),
            tuple(images.get(index) for images in kept),
            tuple(attack.records[index] for attack in attacks),
            comparison.class_names or names,
        )
        for index in chosen
    ]
    return Gallery(labels, tuple(rows), tuple(notes))


def _why_none(comparison: Comparison, attacks: Sequence[AttackResult]) -> str:
    """Why there is no adversarial image to show, in words."""
    if not any(attack.records[i].outcome == ATTACKED for attack in attacks for i in comparison.eligible):
        return _NOT_BROKEN
    named = [part.config.get("save_adversarial") for attack in attacks for part in attack.parts]
    files = [str(name) for name in named if name]
    if not files:
        return _NOT_KEPT
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"The adversarial images are not there any more: no file of these runs is at {files[0]}{more}"


def _kept(attack: AttackResult) -> StoredImages:
    """The images of its successes."""
    images = StoredImages()
    for part in attack.parts:
        images |= kept_images(part.config.get("save_adversarial"), part.path, part.fingerprint)
    return images.of({index for index, record in attack.records.items() if record.outcome == ATTACKED})


def _clean(part: ResultFile[Any], indices: Sequence[int]) -> tuple[dict[int, Image], ClassNames, list[str]]:
    """The originals and the class names out of the data set that the run says it was on; and why there are none."""
    name, data_dir = part.setting("dataset"), part.setting("data_dir")
    try:
        images = open_dataset(
            name, data_dir and Path(data_dir), part.setting("split"), image_size=part.setting("image_size")
        )
        recorded = part.images.get("count"), part.images.get("files_sha256")
        if (len(images), images.files_sha256) != recorded:
            return {}, {}, [f"Without the clean images: {data_dir or name} holds other data now"]
        resize, interpolation = part.setting("image_resize"), part.setting("interpolation")
        if isinstance(images, ImageFiles) and resize is not None and interpolation is not None:
            images = images.prepared(resize, interpolation)
        names = {str(number): name for number, name in enumerate(images.class_names)}
        return {index: images.image(index).numpy() for index in indices}, names, []
    except CaaError as error:
        return {}, {}, [f"Without the clean images: {error.problem}"]
