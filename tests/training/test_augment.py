"""Augmentation: what comes out is a crop of what went in, and every crop comes up."""

from __future__ import annotations

import random

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from caa_cli.training.augment import crop_and_flip, crop_box
from caa_cli.training.feed import MemoryFeed


def crops(image: torch.Tensor, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of an image, by its pixels."""
    _, height, width = image.shape
    padded = F.pad(image, [padding] * 4)
    found = {}
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded[:, top : top + height, left : left + width]
            found[crop.numpy().tobytes()] = (top, left, False)
            found[crop.flip(-1).numpy().tobytes()] = (top, left, True)
    return found


def test_crops_and_flips_are_all_there_are_and_all_come_up():
    image = torch.arange(3 * 6 * 5, dtype=torch.uint8).view(3, 6, 5) + 1
    known = crops(image, 1)
    assert len(known) == 18
    batch = image.expand(600, -1, -1, -1)
    found = crop_and_flip(batch, torch.Generator().manual_seed(0), padding=1)
    assert found.shape == batch.shape
    assert found.dtype == torch.uint8
    seen = [known[row.contiguous().numpy().tobytes()] for row in found]
    assert set(seen) == set(known.values())
    # Each with probability 1/18: 600/18 ± 5 standard deviations.
    assert all(5 <= seen.count(crop) <= 62 for crop in known.values())


def test_without_padding_it_only_mirrors():
    images = torch.randint(256, (50, 1, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = crop_and_flip(images, torch.Generator().manual_seed(1), padding=0)
    same = [torch.equal(a, b) for a, b in zip(images, found, strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(images, found, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True))
    assert 10 < sum(same) < 40


def test_the_generator_decides():
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, again, other = (crop_and_flip(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 2**32))
@settings(max_examples=300)
def test_random_crops_lie_in_the_image(width: int, height: int, seed: int):
    left, top, wide, high = crop_box(width, height, random.Random(seed))
    assert left >= 0
    assert top >= 0
    assert 1 <= wide <= width - left
    assert 1 <= high <= height - top


def test_random_crops_are_of_all_areas_and_shapes():
    draws = random.Random(0)
    boxes = [crop_box(1000, 1000, draws) for _ in range(2000)]
    areas = [wide * high / 1e6 for _, _, wide, high in boxes]
    ratios = [wide / high for _, _, wide, high in boxes]
    assert 0.079 < min(areas) < 0.09
    assert 0.9 < max(areas) <= 1
    assert 0.745 < min(ratios) < 0.77
    assert 1.3 < max(ratios) < 1.34


def test_flips_are_not_cropped_too():
    images = torch.randint(256, (20, 1, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    feed = MemoryFeed(images, torch.zeros(20).long(), torch.device("cpu"), "flip")
    ((found, _),) = feed.batches([torch.arange(20)], torch.Generator().manual_seed(1))
    same = {torch.equal(a / 255, b) for a, b in zip(images, found, strict=True)}
    assert same == {True, False}
    assert all(
        torch.equal(a / 255, b) or torch.equal(a.flip(-1) / 255, b) for a, b in zip(images, found, strict=True)
    )
