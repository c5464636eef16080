"""Adversarial images: the journal of a run, and the safetensors file at its end. One image is in memory at a time."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from caa_cli.config.schema import check, parse
from caa_cli.results.documents import ShardOf
from caa_cli.results.records import ATTACKED, AttackRecord
from caa_cli.results.store.files import write_atomically

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StoredImages(Mapping[int, Image]):
    """Images in files by global index, each read on demand: float32, of the shape of a model input.

    read: returns the image, by index.
    """

    read: dict[int, Callable[[], Image]] = field(default_factory=dict)

    def __getitem__(self, index: int) -> Image:
        return self.read[index]()

    def __iter__(self) -> Iterator[int]:
        return iter(self.read)

    def __len__(self) -> int:
        return len(self.read)

    def __contains__(self, index: object) -> bool:
        return index in self.read  # Mapping.__contains__ would read the image

    def of(self, indices: Container[int]) -> StoredImages:
        """Those of these indices alone."""
        return StoredImages({index: read for index, read in self.read.items() if index in indices})

    def __or__(self, other: StoredImages) -> StoredImages:
        return StoredImages(self.read | other.read)


class ImageJournal:
    """A file beside the output to which images are appended as they are verified.

    It begins with the run's fingerprint, which tells its images from another run's. Entries of one size follow: the
    index (int64) and the pixels (float32).
    """

    def __init__(self, path: Path, shape: Sequence[int], fingerprint: str) -> None:
        self.path, self.shape = path, tuple(shape)
        self._head = fingerprint.encode().ljust(16)[:16]
        self._entry = 8 + 4 * int(np.prod(self.shape))

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether the file begins with a fingerprint, which a kill may have cut off."""
        with path.open("rb") as file:
            return set(file.read(16)) <= set(b"0123456789abcdef")

    def start(self) -> None:
        self.path.write_bytes(self._head)

    def append(self, index: int, image: Image) -> None:
        with self.path.open("r+b") as file:  # one that was removed must not begin anew without its fingerprint
            file.seek(0, os.SEEK_END)
            file.write(struct.pack("<q", index) + np.ascontiguousarray(image, "<f4").tobytes())

    def resume(self) -> set[int]:
        """Prepare the file for appending and return the indices in it.

        A truncated last entry is dropped; another run's file is begun anew.
        """
        if not self.path.exists() or not self._ours():
            self.start()
        head = len(self._head)
        entries = (self.path.stat().st_size - head) // self._entry
        with self.path.open("r+b") as file:
            file.truncate(head + entries * self._entry)
        return set(self.read())

    def _ours(self) -> bool:
        with self.path.open("rb") as file:
            return file.read(len(self._head)) == self._head

    def read(self) -> StoredImages:
        """The images so far; the last one of an index counts."""
        images: dict[int, Callable[[], Image]] = {}
        with self.path.open("rb") as file:
            for start in range(len(self._head), self.path.stat().st_size - self._entry + 1, self._entry):
                file.seek(start)
                images[struct.unpack("<q", file.read(8))[0]] = partial(self._image, start)
        return StoredImages(images)

    def _image(self, start: int) -> Image:
        with self.path.open("rb") as file:
            file.seek(start + 8)
            return np.frombuffer(file.read(self._entry - 8), "<f4").reshape(self.shape).copy()


def save_images(
    path: Path,
    images: Mapping[int, Image],
    records: Sequence[AttackRecord],
    fingerprint: str,
    shard: Mapping[str, int] | None = None,
) -> None:
    """Write the verified adversarial images: tensors `images` (M, C, H, W) float32, `indices`, `labels`,
    `adversarial_classes` (M,) int64 and `radii` (M,) float64, in the order of the indices.

    shard: recorded, so that another shard does not replace them.
    """
    kept = [r for r in sorted(records, key=lambda r: r.index) if r.index in images and r.outcome == ATTACKED]
    shape = images[kept[0].index].shape if kept else (0, 0, 0)
    vectors = {
        "indices": np.array([r.index for r in kept], dtype=np.int64),
        "labels": np.array([r.label for r in kept], dtype=np.int64),
        "adversarial_classes": np.array([r.adversarial_class for r in kept], dtype=np.int64),
        "radii": np.array([r.radius for r in kept], dtype=np.float64),
    }
    about = {"fingerprint": fingerprint, "pixels": "[0, 1]", "count": len(kept)}
    metadata = {"caa": json.dumps(about if shard is None else {**about, "shard": dict(shard)})}
    tensors = {name: (vector.dtype, vector.shape) for name, vector in vectors.items()}
    head = _header(metadata, {**tensors, "images": (_PIXEL, (len(kept), *shape))})

    def content() -> Iterator[bytes]:
        yield head
        for vector in vectors.values():
            yield vector.tobytes()
        for record in kept:
            yield np.ascontiguousarray(images[record.index], _PIXEL).tobytes()

    write_atomically(path, content())


_PIXEL = np.dtype("<f4")
_NAMES = {"<i8": "I64", "<f8": "F64", "<f4": "F32"}


def _header(metadata: dict[str, str], tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> bytes:
    """The header of a safetensors file whose tensors follow in this order.

    safetensors.numpy.save would need all tensors in memory.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": _NAMES[dtype.str], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def saved_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file of saved images: fingerprint and, in newer files, shard; empty for any other file."""
    try:
        metadata: dict[str, Any] = parse((safe_open(path, framework="numpy").metadata() or {}).get("caa", "{}"))
        check(metadata, dict[str, Any])
        check(metadata.get("shard"), ShardOf | None)
    except (OSError, SafetensorError, ValueError, TypeError):
        return {}
    return metadata


def saved_images(path: Path, fingerprint: str) -> StoredImages:
    """The images that a run with this fingerprint saved; none for any other file."""
    if saved_metadata(path).get("fingerprint") != fingerprint:
        return StoredImages()
    try:
        file = safe_open(path, framework="numpy")
        images, indices = file.get_slice("images"), file.get_tensor("indices").tolist()
    except (OSError, SafetensorError, ValueError, AttributeError, TypeError):
        return StoredImages()
    return StoredImages({index: partial(images.__getitem__, place) for place, index in enumerate(indices)})


def kept_images(save_adversarial: str | None, result: Path, fingerprint: str) -> StoredImages:
    """The images that a run saved.

    A file is looked for where the result names it and beside the result, since both may have been moved together.
    """
    if not save_adversarial:
        return StoredImages()
    named = Path(save_adversarial)
    return saved_images(result.parent / named.name, fingerprint) | saved_images(named, fingerprint)
