"""Keyed noise: the noise of an example depends on its key alone.

A key is (seed, global example index, purpose, iteration, search). Its stream of samples is cut into blocks of a fixed
number of samples, and each block has a generator seed hashed from the key and the block's number. So batch, chunk
size and shard change nothing, any sample can be redrawn without those before it, and search, certification and
verification never share a draw.

The two kinds of device have different generators: a CPU run and a CUDA run see different noise of the same law; so
may GPUs with different numbers of multiprocessors.
PyTorch's CPU generator keeps 32 bits of a seed. Two given blocks therefore coincide with probability 2⁻³²;
for one image at the default settings (about 1,500 blocks) some pair does with probability 3·10⁻⁴.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from caa_cli.errors import UsageError

Draw = Callable[[Tensor, torch.Generator], object]


class Purpose(IntEnum):
    """What a draw is for. No two purposes share a sample."""

    SELECTION = 1  # which class the clean image is given
    CERTIFICATION = 2  # the certified radius of the clean image
    SEARCH = 3  # the iterations of an attack
    PROBE = 4  # the boundary line search
    VERIFICATION = 5  # whether a candidate is adversarial, on fresh noise
    GUMBEL = 6  # the Gumbel draws of the paper's surrogate, together with SEARCH
    TUNING = 7  # measuring chunk sizes
    EVALUATION = 8  # accuracy after training
    DECISION = 9  # whether an image is certified at one given radius
    START = 10  # where an attack with a random start begins, or which rivals it begins with
    DIRECT = 11  # votes and gradients that a caller asks a classifier for
    PROPOSAL = 12  # what an attack of the user's proposes; the seeds of its own random draws
    TARGET = 13  # which other class is the most or the least likely one at the clean image


@dataclass(frozen=True)
class Key:
    """Names one stream of noise samples. iteration: below 2³².  search: which of the searches of the same image."""

    seed: int
    index: int
    purpose: Purpose
    iteration: int = 0
    search: int = 0

    @staticmethod
    def direct(examples: int, seed: int = 0) -> list[Key]:
        """Keys for a caller that asks for votes or gradients of so many examples. Raises UsageError for a seed that
        64 bits do not hold."""
        if not -(2**63) <= seed < 2**63:
            raise UsageError(f"seed = {seed} is too large", "for instance seed=0")
        return [Key(seed, index, Purpose.DIRECT) for index in range(examples)]

    def block_seed(self, block: int) -> int:
        """A 63-bit seed for one block: BLAKE2b of the key and the block's number."""
        number = self.iteration + (self.search << 32)
        packed = struct.pack("<qqqqq", self.seed, self.index, int(self.purpose), number, block)
        digest = hashlib.blake2b(packed, digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1


class NoiseSource(threading.local):
    """Draws the samples of a key for inputs of one shape on one device. Each thread has a generator of its own."""

    # Elements of a block: on a CPU few enough to stay in the cache, on a GPU enough to fill it.
    _BLOCK_ELEMENTS_CPU, _BLOCK_ELEMENTS_GPU = 2**16, 2**21

    def __init__(self, input_shape: tuple[int, ...], device: torch.device) -> None:
        self._arguments = input_shape, device
        elements = self._BLOCK_ELEMENTS_CPU if device.type == "cpu" else self._BLOCK_ELEMENTS_GPU
        samples = max(1, elements // math.prod(input_shape))
        self.block = min(256, 2 ** int(math.log2(samples)))
        self._generator = torch.Generator(device=device)

    def __reduce__(self) -> tuple[type[NoiseSource], tuple[tuple[int, ...], torch.device]]:
        return NoiseSource, self._arguments  # nothing else of a thread's can be copied or pickled, or need be

    def gaussian(self, out: Tensor, keys: Sequence[Key], start: int, sigma: float) -> None:
        """Fills `out` (examples, samples, *input_shape) with N(0, σ²): samples start, start + 1, … of each key."""
        self._fill_rows(out, keys, start, lambda block, g: block.normal_(0.0, sigma, generator=g))

    def gumbel(self, out: Tensor, keys: Sequence[Key], start: int) -> None:
        """Fills `out` (examples, samples, classes) with standard Gumbel draws, −log of a standard exponential."""
        gumbel_keys = [replace(key, purpose=Purpose.GUMBEL) for key in keys]
        self._fill_rows(out, gumbel_keys, start, lambda block, g: block.exponential_(generator=g))
        out.log_().neg_()

    def _fill_rows(self, out: Tensor, keys: Sequence[Key], start: int, draw: Draw) -> None:
        """One key a row. Several points of an image may share its noise, which is then drawn once."""
        drawn: dict[Key, Tensor] = {}
        for row, key in zip(out, keys, strict=True):
            if key in drawn:
                row.copy_(drawn[key])
            else:
                self._fill(row, key, start, draw)
                drawn[key] = row

    def _fill(self, out: Tensor, key: Key, start: int, draw: Draw) -> None:
        stop = start + len(out)
        position = start
        while position < stop:
            number, offset = divmod(position, self.block)
            end = min(stop, (number + 1) * self.block)
            self._generator.manual_seed(key.block_seed(number))
            if offset == 0 and end - position == self.block:
                draw(out[position - start : end - start], self._generator)
            else:
                # A generator's output depends on the number of values drawn at once, so a part of a block is cut out
                # of the whole block.
                whole = out.new_empty((self.block, *out.shape[1:]))
                draw(whole, self._generator)
                out[position - start : end - start] = whole[offset : offset + end - position]
            position = end
