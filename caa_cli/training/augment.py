"""Random crops and flips. Draws depend on the epoch's generator only, never on the worker process."""

from __future__ import annotations

import hashlib
import math
import random
import struct
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from caa_cli.data.decoding import ImageError
from caa_cli.data.files import ImageFiles

# Black pixels around an image before it is cropped.
PADDING = {"flip": 0, "crop-flip": 4}
RESIZED_CROP = "resized-crop-flip"


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Random crops of images padded with `padding` black pixels, half of them mirrored (He et al., 2016).

    images: (batch, channels, height, width) uint8; the result has the same shape. generator: on the CPU.
    """
    count, _, height, width = images.shape
    drawn = [torch.randint(2 * padding + 1, (count, 1), generator=generator) for _ in range(2)]
    drawn.append(torch.rand((count, 1), generator=generator) < 0.5)
    # Not waiting for a GPU, which may still be at the step before.
    top, left, mirrored = (draw.to(images.device, non_blocking=True) for draw in drawn)
    rows = top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = left + torch.where(mirrored, columns.flip(1), columns)
    padded = F.pad(images, [padding] * 4)
    every = torch.arange(count, device=images.device)[:, None, None]
    return padded[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class AugmentedFiles(Dataset[tuple[Tensor | None, int, int]]):
    """Augmented image files for the worker processes: items (image uint8 or None if unreadable, label, position).

    augment: `resized-crop-flip` is the one usual for ImageNet: a random crop (`crop_box`) of the original image,
    resized, and mirrored half of the time; all others start from the data set's preprocessing.
    """

    def __init__(self, images: ImageFiles, positions: Sequence[int], augment: str, salt: int) -> None:
        self.images, self.positions, self.augment, self.salt = images, positions, augment, salt

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, item: int) -> tuple[Tensor | None, int, int]:
        position = self.positions[item]
        seed = hashlib.blake2b(struct.pack("<qq", self.salt, position), digest_size=8).digest()
        draws = random.Random(seed)
        label = self.images.label(position)
        try:
            if self.augment == RESIZED_CROP:
                image = self._random_crop(position, draws)
                return (image.flip(-1) if draws.random() < 0.5 else image), label, position
            image = (self.images.image(position) * 255.0).round().to(torch.uint8)
        except ImageError:
            return None, label, position
        if self.augment != "none":
            generator = torch.Generator().manual_seed(draws.getrandbits(62))
            image = crop_and_flip(image[None], generator, PADDING[self.augment])[0]
        return image, label, position

    def _random_crop(self, position: int, draws: random.Random) -> Tensor:
        from torchvision.transforms.v2 import functional as transforms

        picture = self.images.pil(position)
        _, *size = self.images.input_shape
        left, top, width, height = crop_box(picture.width, picture.height, draws)
        crop = picture.crop((left, top, left + width, top + height))
        resized: Tensor = transforms.resize(transforms.pil_to_tensor(crop), size, antialias=True)
        return resized


def crop_box(width: int, height: int, draws: random.Random) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a random crop (Szegedy et al., 2015): 8% to 100% of the area, at 3:4 to 4:3.

    If none of ten draws fits the image, the central square.
    """
    for _ in range(10):
        area = width * height * draws.uniform(0.08, 1.0)
        ratio = math.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return draws.randint(0, width - wide), draws.randint(0, height - high), wide, high
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side, side


def keep_readable(items: list[tuple[Tensor | None, int, int]]) -> tuple[Tensor, Tensor, list[int]]:
    """(images, labels, unreadable positions) of a batch.

    Readable images replace unreadable ones, so that the batch size stays the same in all processes of a training.
    Raises OSError if no image can be read.
    """
    read = [(image, label) for image, label, _ in items if image is not None]
    unreadable = [position for image, _, position in items if image is None]
    if not read:
        raise OSError("none of the images of a batch can be read")
    read += [read[turn % len(read)] for turn in range(len(unreadable))]
    return torch.stack([image for image, _ in read]), torch.tensor([label for _, label in read]), unreadable
