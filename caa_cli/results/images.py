"""Adversarial images as they are found, and the safetensors file they end up in."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from caa_cli.results.files import write_atomically
from caa_cli.results.records import AttackRecord

Image = NDArray[np.float32]


class ImageJournal:
    """Images appended one by one beside the output: (index, float32 pixels), flushed at once."""

    def __init__(self, path: Path, shape: Sequence[int]) -> None:
        self.path, self.shape = path, tuple(shape)
        self._pixels = 4 * int(np.prod(self.shape))

    @staticmethod
    def beside(output: Path, shape: Sequence[int]) -> ImageJournal:
        return ImageJournal(output.with_name(output.name + ".images"), shape)

    def start(self) -> None:
        self.path.write_bytes(b"")

    def append(self, index: int, image: Image) -> None:
        with self.path.open("ab") as file:
            file.write(struct.pack("<q", index) + np.ascontiguousarray(image, "<f4").tobytes())

    def resume(self) -> set[int]:
        """Drops an entry that a kill cut off; returns the indices of those that are whole."""
        if not self.path.exists():
            self.start()
        size = self.path.stat().st_size
        with self.path.open("r+b") as file:
            file.truncate(size - size % (8 + self._pixels))
        return set(self.read())

    def read(self) -> dict[int, Image]:
        """All images so far, by global index: float32 of the shape of an input."""
        found: dict[int, Image] = {}
        with self.path.open("rb") as file:
            while len(entry := file.read(8 + self._pixels)) == 8 + self._pixels:
                (index,) = struct.unpack_from("<q", entry)
                found[index] = np.frombuffer(entry, "<f4", offset=8).reshape(self.shape).copy()
        return found

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def save_images(path: Path, images: dict[int, Image], records: Sequence[AttackRecord]) -> None:
    """Writes the verified adversarial images: tensors `images` (M, C, H, W) float32, `indices`, `labels`,
    `adversarial_classes` (M,) int64 and `radii` (M,) float64, in the order of the indices."""
    kept = [record for record in sorted(records, key=lambda r: r.index) if record.index in images]
    shape = next(iter(images.values())).shape if images else (0, 0, 0)
    tensors = {
        "images": np.stack([images[r.index] for r in kept]) if kept else np.zeros((0, *shape), np.float32),
        "indices": np.array([r.index for r in kept], dtype=np.int64),
        "labels": np.array([r.label for r in kept], dtype=np.int64),
        "adversarial_classes": np.array([r.adversarial_class for r in kept], dtype=np.int64),
        "radii": np.array([r.radius for r in kept], dtype=np.float64),
    }
    metadata = {"caa": json.dumps({"pixels": "[0, 1]", "count": len(kept)})}
    write_atomically(path, save(tensors, metadata=metadata))
