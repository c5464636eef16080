"""TorchScript files: a network with the code that computes it, and so loaded only where it is trusted."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import torch

from caa_cli.errors import CaaError
from caa_cli.models.contents import Contents
from caa_cli.models.limits import short


def untrusted(path: Path) -> CaaError:
    """TorchScript can't do all that Python can, but it can write files, and its text doesn't safely tell whether."""
    return CaaError(
        f"{path} is TorchScript, a program: running it could write files, so it isn't loaded",
        "if you trust it like a program, add --trust-checkpoint; or, where it comes from, "
        "save its state dict: torch.save(model.state_dict(), 'weights.pt')",
    )


def read_torchscript(path: Path, content: bytes) -> Contents:
    """The network; this may run code from the file. Raises CaaError on a damaged one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.9 and later call torch.jit deprecated
            module = torch.jit.load(BytesIO(content), map_location="cpu")
    except Exception as error:  # whatever the first wrong byte leads to
        raise CaaError(
            f"the TorchScript file {path} can't be loaded ({short(str(error).strip().splitlines()[-1], 200)})",
            "copy it again, or save it with the PyTorch version that is used here",
        ) from error
    return Contents("TorchScript", dict(module.state_dict()), module)
