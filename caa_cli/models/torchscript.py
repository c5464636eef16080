"""TorchScript files, which hold a network with its code and so are loaded only if trusted."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import torch

from caa_cli.errors import CaaError
from caa_cli.models.contents import Contents
from caa_cli.models.limits import last_line, short


def untrusted(path: Path, program: str) -> CaaError:
    """The error for an untrusted file: TorchScript can write files, and no inspection of its code excludes that;
    loading a file of torch.export evaluates expressions in it."""
    return CaaError(
        f"{path} is {program}, a program: running it could write files, so it isn't loaded",
        "if you trust it like a program, add --trust-checkpoint; or, where it comes from, "
        "save its state dict: torch.save(model.state_dict(), 'weights.pt')",
    )


def read_torchscript(path: Path, content: bytes) -> Contents:
    """The network in the file; loading may run its code. Raises CaaError for a damaged file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.9 and later call torch.jit deprecated
            module = torch.jit.load(BytesIO(content), map_location="cpu")
    except Exception as error:  # whatever the first wrong byte leads to
        raise CaaError(
            f"the TorchScript file {path} can't be loaded ({short(last_line(error), 200)})",
            "copy it again, or save it with the PyTorch version that is used here",
        ) from error
    return Contents("TorchScript", dict(module.state_dict()), module)
