"""What keeps an attack of the user's apart from the rest of a run, and a check of what it returns."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import numpy as np
import torch
from torch import Tensor

from caa_cli.errors import CaaError
from caa_cli.runtime.device import rounding_kept

# How far a pixel may lie outside of [0, 1] by rounding, beside the precision of its type.
_ROUNDING = 1e-5
# Of an exception's message, in a result.
_MOST_CHARACTERS = 300


class ProposalError(Exception):
    """An image that was returned can't be a candidate; the message says why."""


@contextmanager
def isolated(seed: int, device: torch.device) -> Iterator[None]:
    """A context in which the global random generators begin with this seed.

    Afterwards they are as they were, and so are PyTorch's default dtype and device, its number of threads, the
    precision of its products and whether it records gradients. What is printed goes to stderr, since stdout may be a
    document.
    """
    before = random.getstate(), np.random.get_state(), torch.get_default_dtype(), torch.get_num_threads()
    default_device = torch.empty(0).device  # torch.get_default_device() fails after a None was set, in PyTorch 2.6
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.enable_grad(),
        rounding_kept(),
        redirect_stdout(sys.stderr),
    ):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_default_dtype(before[2])
            if torch.get_num_threads() != before[3]:
                torch.set_num_threads(before[3])
            if torch.empty(0).device != default_device:
                torch.set_default_device(None if default_device.type == "cpu" else default_device)


def image_of(returned: object, clean: Tensor) -> Tensor:
    """What an attack returned for one image as that image's candidate, like `clean`. Raises ProposalError."""
    if isinstance(returned, np.ndarray):
        raise ProposalError("returned a NumPy array, not a tensor: torch.from_numpy makes one of it")
    if not isinstance(returned, Tensor):
        raise ProposalError(f"returned {type(returned).__name__}, not a tensor")
    shape = (1, *clean.shape)
    if returned.shape != shape:
        raise ProposalError(f"returned a tensor of shape {tuple(returned.shape)}, not {shape}")
    if not returned.is_floating_point():
        raise ProposalError(f"returned a tensor of {returned.dtype}: pixels are real numbers in [0, 1]")
    image = returned.detach()[0].to(clean.device)
    unusable = int((~image.isfinite()).sum())
    if unusable:
        raise ProposalError(f"returned an image with NaN or infinity in {unusable} of {image.numel()} values")
    low, high = float(image.min()), float(image.max())
    tolerance = max(_ROUNDING, torch.finfo(image.dtype).eps)
    if low < -tolerance or high > 1.0 + tolerance:
        raise ProposalError(f"returned an image with pixels outside of [0, 1]: from {low:.6g} to {high:.6g}")
    return image.to(clean.dtype).clamp(0.0, 1.0)


def reason(error: BaseException, file: str | None) -> str:
    """Why an attack failed, in words; for an exception of its code with the place in that file, where it has one."""
    said = ": ".join(filter(None, (error.problem, error.hint))) if isinstance(error, CaaError) else str(error)
    text = " ".join(said.split())[:_MOST_CHARACTERS]
    if isinstance(error, ProposalError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1] if frames else None)
    where = f" ({place.filename}, line {place.lineno})" if place else ""
    return f"raised {type(error).__name__}: {text}{where}"
