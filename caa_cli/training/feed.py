"""Sources of training batches: images in memory, or files decoded by worker processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from caa_cli.data.decoding import ignore_interrupts
from caa_cli.data.files import ImageFiles
from caa_cli.errors import CaaError
from caa_cli.training.augment import PADDING, AugmentedFiles, crop_and_flip, keep_readable


class Feed(Protocol):
    """Batches of training images in a requested order; `unreadable` holds the positions of unreadable images."""

    unreadable: set[int]

    def __len__(self) -> int: ...

    def batches(self, order: Sequence[Tensor], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """For each tensor of positions: images (batch, *input_shape) float32 in [0, 1], and labels (batch,) int64.

        Both are on the device; images are augmented with draws from `generator`, which is on the CPU.
        """
        ...


class MemoryFeed:
    """Images held on the device: (N, *input_shape) uint8, and labels (N,) int64."""

    def __init__(self, images: Tensor, labels: Tensor, device: torch.device, augment: str = "none") -> None:
        self.images, self.labels = images.to(device), labels.to(device)
        self.augment = augment
        self.unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, order: Sequence[Tensor], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        if not order:
            return
        # All at once: each copy to a GPU would wait for the step before it.
        positions = torch.cat([*order]).to(self.images.device)
        for chosen in positions.split([len(batch) for batch in order]):
            images = self.images[chosen]
            if self.augment != "none":
                images = crop_and_flip(images, generator, PADDING[self.augment])
            yield images.float() / 255.0, self.labels[chosen]


class FileFeed:
    """Image files, decoded and augmented ahead of use by `workers` processes.

    positions: the examples to use.
    Unreadable images are replaced by others, and their positions recorded in `unreadable`.
    """

    def __init__(
        self, images: ImageFiles, positions: Sequence[int], device: torch.device, augment: str, workers: int
    ) -> None:
        self.images, self.positions = images, list(positions)
        self.device, self.augment, self.workers = device, augment, workers
        self.unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self, order: Sequence[Tensor], generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        salt = int(torch.randint(2**62, (), generator=generator))
        files = AugmentedFiles(self.images, self.positions, self.augment, salt)
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than there are cores
        loader = DataLoader(
            files,
            batch_sampler=[chosen.tolist() for chosen in order],
            num_workers=self.workers,
            collate_fn=keep_readable,
            worker_init_fn=_ignore_interrupts,
            pin_memory=self.device.type == "cuda",
        )
        try:
            for images, labels, unreadable in loader:
                self.unreadable.update(unreadable)
                placed = images.to(self.device, non_blocking=True)
                yield placed.float() / 255.0, labels.to(self.device, non_blocking=True)
        except OSError as error:
            raise CaaError("none of a batch's images can be read", "check the files under --data-dir") from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise CaaError(
                f"a process that decodes images was ended from outside ({str(error).splitlines()[0]})",
                "memory or shared memory may be short: use fewer --workers, and repeat the command with --resume",
            ) from error


def _ignore_interrupts(worker: int) -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal, in a worker; the main process handles it."""
    ignore_interrupts()
