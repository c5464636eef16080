"""The images of a training run: for training, held out, and for the final evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.datasets import open_dataset
from caa_cli.data.files import ImageFiles
from caa_cli.data.images import Images, ImageSet, spread
from caa_cli.data.load import load
from caa_cli.errors import UsageError
from caa_cli.runtime.words import counted, sizes
from caa_cli.training.augment import RESIZED_CROP
from caa_cli.training.feed import Feed, FileFeed, MemoryFeed

# Held-out images: a tenth of the training images, but at most as many as suffice to compare epochs.
HELDOUT_SHARE, HELDOUT_MOST = 10, 5000
# Image files are held in memory where all their pixels take no more bytes than this.
MEMORY = 4 * 2**30


@dataclass(frozen=True)
class Sources:
    """The images of a run.

    images: the data set of `train` and `heldout`.  test: None without a final evaluation.  notes: for the user.
    """

    train: Feed
    heldout: Feed
    images: Images
    test: Images | None
    notes: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Identification of the images, as JSON; a resumed run must have the same."""
        return {"images": len(self.images), "files_sha256": self.images.files_sha256}


def open_sources(plan: TrainPlan, device: torch.device, notify: Callable[[str], object]) -> Sources:
    """The images of a run; notify: told of what takes long. Raises CaaError if some are missing or don't match."""
    images = _open(plan, "train")
    notes = images.notes
    test: Images | None = None
    if plan.evaluate_samples and not (plan.denoises and plan.classifier is None):
        try:
            test = _open(plan, "test")
        except UsageError as error:
            hint = (error.hint or "").removesuffix(", or use --split train")  # an option of other commands
            raise UsageError(
                f"for the evaluation at the end: {error.problem}", f"{hint}; or add --evaluate-samples 0"
            ) from error
        if isinstance(images, ImageFiles) and isinstance(test, ImageFiles) and images.root == test.root:
            test, notes = None, (*notes, "so there are no test images to evaluate the smoothed classifier on")
        elif (test.input_shape, test.num_classes) != (images.input_shape, images.num_classes):
            raise UsageError(
                f"training images are {_described(images)}, test images {_described(test)}",
                "bring them to one size with --image-size, or leave the evaluation out: --evaluate-samples 0",
            )
        else:
            notes = tuple(dict.fromkeys((*notes, *test.notes)))
    return Sources(*_feeds(plan, images, device, notify), images, test, notes)


def _open(plan: TrainPlan, split: str) -> ImageSet | ImageFiles:
    return open_dataset(
        plan.dataset, plan.data_dir, split, image_size=plan.image_size, download=plan.download, dry_run=plan.dry_run
    )


def _feeds(
    plan: TrainPlan, images: ImageSet | ImageFiles, device: torch.device, notify: Callable[[str], object]
) -> tuple[Feed, Feed]:
    """(training images, held-out images). The latter are evenly spaced, as files are sorted by class."""
    total, chosen = len(images), plan.augmentation
    count = min(HELDOUT_MOST, total // HELDOUT_SHARE) if plan.heldout is None else plan.heldout
    if total < 2:
        raise UsageError(f"{images.name} has 1 image: training takes two or more", "add images")
    if count > total - 2:
        raise UsageError(
            f"--heldout {count} leaves too few of {counted(total, 'image')} to train on",
            "use a smaller --heldout",
        )
    held = torch.zeros(total, dtype=torch.bool)
    held[spread(total, count)] = True
    # Resized crops are taken from the original images, which only files hold.
    if chosen == RESIZED_CROP and not isinstance(images, ImageFiles):
        raise UsageError(f"--augment {chosen} needs image files, {images.name} has none", "use --augment crop-flip")
    if isinstance(images, ImageFiles) and (chosen == RESIZED_CROP or _bytes(images) > MEMORY):
        training, kept = torch.nonzero(~held)[:, 0].tolist(), torch.nonzero(held)[:, 0].tolist()
        return (
            FileFeed(images, training, device, chosen, plan.workers),
            FileFeed(images, kept, device, "none", plan.workers),
        )
    if isinstance(images, ImageFiles):
        notify(f"decoding {counted(total, 'image')} of {images.name}, to be held in memory")
    loaded = load(images)
    if (most := int(loaded.labels.max())) >= images.num_classes:
        raise UsageError(
            f"a label of {images.name} is {most}, and its classes are 0 to {images.num_classes - 1}",
            "its file of labels may be damaged, or another data set's: get it again",
        )
    return (
        MemoryFeed(loaded.images[~held], loaded.labels[~held], device, chosen),
        MemoryFeed(loaded.images[held], loaded.labels[held], device),
    )


def _bytes(images: ImageFiles) -> int:
    return len(images) * math.prod(images.input_shape)


def _described(images: Images) -> str:
    return f"{sizes(images.input_shape)} of {counted(images.num_classes, 'class')}"
