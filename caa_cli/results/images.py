"""Adversarial images as they are found, and the safetensors file they end up in."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from caa_cli.results.files import write_atomically
from caa_cli.results.records import ATTACKED, AttackRecord

Image = NDArray[np.float32]


class ImageJournal:
    """Images appended one by one beside the output, each written through at once.

    The file begins with the fingerprint of the run, so that images of another are never taken for its own; then
    come (index, float32 pixels) entries of one size.
    """

    def __init__(self, path: Path, shape: Sequence[int], fingerprint: str) -> None:
        self.path, self.shape = path, tuple(shape)
        self._head = fingerprint.encode().ljust(16)[:16]
        self._entry = 8 + 4 * int(np.prod(self.shape))

    @staticmethod
    def place(output: Path) -> Path:
        return output.with_name(output.name + ".images")

    def start(self) -> None:
        self.path.write_bytes(self._head)

    def append(self, index: int, image: Image) -> None:
        with self.path.open("ab") as file:
            file.write(struct.pack("<q", index) + np.ascontiguousarray(image, "<f4").tobytes())

    def resume(self) -> set[int]:
        """The indices of the whole entries; one that a kill cut off is dropped, another run's file begun anew."""
        if not self.path.exists() or not self._ours():
            self.start()
        entries = (self.path.stat().st_size - len(self._head)) // self._entry
        starts = [len(self._head) + entry * self._entry for entry in range(entries + 1)]
        held: set[int] = set()
        with self.path.open("r+b") as file:
            file.truncate(starts.pop())
            for start in starts:
                file.seek(start)
                held.update(struct.unpack("<q", file.read(8)))
        return held

    def _ours(self) -> bool:
        with self.path.open("rb") as file:
            return file.read(len(self._head)) == self._head

    def read(self) -> dict[int, Image]:
        """All images so far, by global index: float32 of the shape of an input."""
        found: dict[int, Image] = {}
        with self.path.open("rb") as file:
            file.seek(len(self._head))
            while len(entry := file.read(self._entry)) == self._entry:
                (index,) = struct.unpack_from("<q", entry)
                found[index] = np.frombuffer(entry, "<f4", offset=8).reshape(self.shape).copy()
        return found

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def save_images(path: Path, images: dict[int, Image], records: Sequence[AttackRecord], fingerprint: str) -> None:
    """Writes the verified adversarial images: tensors `images` (M, C, H, W) float32, `indices`, `labels`,
    `adversarial_classes` (M,) int64 and `radii` (M,) float64, in the order of the indices."""
    kept = [r for r in sorted(records, key=lambda r: r.index) if r.index in images and r.outcome == ATTACKED]
    shape = next(iter(images.values())).shape if images else (0, 0, 0)
    tensors = {
        "images": np.stack([images[r.index] for r in kept]) if kept else np.zeros((0, *shape), np.float32),
        "indices": np.array([r.index for r in kept], dtype=np.int64),
        "labels": np.array([r.label for r in kept], dtype=np.int64),
        "adversarial_classes": np.array([r.adversarial_class for r in kept], dtype=np.int64),
        "radii": np.array([r.radius for r in kept], dtype=np.float64),
    }
    metadata = {"caa": json.dumps({"fingerprint": fingerprint, "pixels": "[0, 1]", "count": len(kept)})}
    write_atomically(path, save(tensors, metadata=metadata))


def saved_images(path: Path, fingerprint: str) -> dict[int, Image]:
    """The images that an earlier part of the same run saved there, by global index; none if it is another's."""
    try:
        with safe_open(path, framework="numpy") as file:
            said = json.loads((file.metadata() or {}).get("caa", "{}"))
            if said.get("fingerprint") != fingerprint:
                return {}
            images, indices = file.get_tensor("images"), file.get_tensor("indices")
    except (OSError, SafetensorError, ValueError, AttributeError):
        return {}
    return {int(index): image for index, image in zip(indices, images, strict=True)}
