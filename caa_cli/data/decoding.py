"""Decoding of image files to pixels. Torch is not imported, so a worker process starts in a tenth of a second."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from caa_cli.errors import CaaError

GREY, COLOUR = "L", "RGB"
# Of a resized image: one of 1×10,000 pixels would otherwise take gigabytes.
MOST_PIXELS = 100_000_000
_GREY_MODES = ("1", "L", "LA")
# Modes with more than 8 bits per pixel: Pillow would clip values above 255.
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


class ImageError(CaaError):
    """An unusable image: its file is damaged or of another size, or the model does not have its class."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, "put a good copy in its place and repeat the command")


@dataclass(frozen=True)
class Recipe:
    """The preprocessing of image files to arrays of one shape.

    mode: "L" or "RGB".  height, width: of the result, in pixels.  resize: length that the shorter side is resized to
    before a centre crop; None: images must have the size already.  interpolation: one of Pillow's, antialiased.
    """

    mode: str
    height: int
    width: int
    resize: int | None = None
    interpolation: str = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1 if self.mode == GREY else 3), self.height, self.width


def measure(path: str) -> tuple[str, int, int]:
    """(mode, height, width) of an image, from the file's header only. Raises ImageError."""
    with _opened(path) as image:
        return (GREY if image.mode in _GREY_MODES else COLOUR), image.height, image.width


def open_image(path: str, mode: str) -> Image.Image:
    """The decoded image in this mode and its original size. Raises ImageError."""
    with _opened(path) as image:
        if image.mode in _DEEP:
            raise ImageError(f"{path} has more than 8 bits per pixel: convert it to 8")
        if mode == GREY and image.mode not in _GREY_MODES:
            raise ImageError(f"{path} is in colour, in a data set of grey images: convert it to grey")
        return image.convert(mode)


def decode(path: str, recipe: Recipe) -> NDArray[np.uint8]:
    """Pixels (channels, height, width) uint8. Raises ImageError, and nothing else, for an unusable file."""
    image = open_image(path, recipe.mode)
    if recipe.resize is not None:
        image = _centre(_resized(path, image, recipe), recipe.height, recipe.width)
    elif (image.height, image.width) != (recipe.height, recipe.width):
        raise ImageError(
            f"{path} has {image.height}×{image.width} pixels, the data set {recipe.height}×{recipe.width}: "
            "with --dataset folder, --image-size N brings images to one size"
        )
    pixels = np.array(image)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def decode_many(paths: list[str], recipe: Recipe) -> list[NDArray[np.uint8] | str]:
    """The pixels of each file, or the error message of an unusable one; a task of a worker process."""
    images: list[NDArray[np.uint8] | str] = []
    for path in paths:
        try:
            images.append(decode(path, recipe))
        except ImageError as error:
            images.append(error.problem)
    return images


def ignore_interrupts() -> None:
    """Ignore SIGINT and SIGUSR1 in a worker process.

    Ctrl-C reaches every process of the terminal, Slurm's SIGUSR1 every process of a job step; the parent ends its
    workers.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _resized(path: str, image: Image.Image, recipe: Recipe) -> Image.Image:
    """The image resized as by torchvision's Resize: the longer side is rounded down."""
    width, height = image.size
    shorter = recipe.resize or min(image.size)
    longer = int(shorter * max(width, height) / min(width, height))
    size = (shorter, longer) if width <= height else (longer, shorter)
    if shorter * longer > MOST_PIXELS:
        raise ImageError(f"{path} is too long and thin to be resized: {height}×{width} pixels")
    return image if size == image.size else image.resize(size, Image.Resampling[recipe.interpolation.upper()])


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """A centre crop, as by torchvision's CenterCrop, which rounds half to even."""
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


@contextmanager
def _opened(path: str) -> Iterator[Image.Image]:
    """The image in a file, in a context in which whatever Pillow raises is an ImageError, and its warnings are not
    shown: that an image is large, and that transparency is left out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                yield image
    except ImageError:
        raise
    except Exception as error:  # Pillow may raise anything for damaged data
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> ImageError:
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # Pillow's message repeats the path.
    why = "it is no image, or a damaged one" if "cannot identify image file" in why else why
    return ImageError(f"{path} can't be read: {why}")
