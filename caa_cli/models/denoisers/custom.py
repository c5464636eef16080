"""Denoisers that are no family of caa's: `--denoiser-arch package.module:factory`, and files of whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.factory import made_by, parse_call
from caa_cli.models.fit import fitted
from caa_cli.models.limits import last_line, short
from caa_cli.runtime.user_code import file_and_digest, import_from
from caa_cli.runtime.words import sizes

CUSTOM = "custom"


def whole_network(network: nn.Module, arch: str) -> Denoiser:
    """The denoiser that a file holds with its code. arch: TorchScript, or a pickled network."""
    return Denoiser(family=CUSTOM, arch=arch, channels=None, build=lambda sigma: network.float().eval())


def from_factory(name: str, file: DenoiserFile | None) -> Denoiser:
    """The denoiser that a factory of the user's returns, with the weights of the file; None: it holds its own.

    The factory is given `sigma` if it has a parameter of that name.
    """

    def build(sigma: float) -> nn.Module:
        network = made_by("--denoiser-arch", name, {"sigma": sigma}).eval()
        if file is not None:
            weights, difference = fitted(file.weights.path, file.weights.tensors, network.state_dict())
            if difference is not None:
                raise CaaError(
                    f"the weights in {file.path} don't fit {name}: {difference}",
                    "name the factory of the denoiser that they were trained with",
                )
            network.load_state_dict(weights, strict=False)
        return network

    return Denoiser(family=CUSTOM, arch=name, channels=None, build=build)


def code_digest(name: str) -> str:
    """The SHA-256 of the file that defines a factory of the user's. Raises UsageError where there is none."""
    with import_from(Path.cwd()):
        return file_and_digest(parse_call("--denoiser-arch", name).factory(f"--denoiser-arch {name}"))[1]


def check_output(network: nn.Module, input_shape: Sequence[int], arch: str) -> None:
    """Raise CaaError unless the network maps images of this shape (channels, height, width) to such images."""
    wanted = (2, *input_shape)
    images = sizes(input_shape)
    try:
        with torch.no_grad():
            out = network(torch.zeros(wanted))
    except Exception as error:  # foreign code may raise anything
        raise UsageError(
            f"the denoiser {arch} can't take {images} images ({short(last_line(error), 200)})",
            "check --dataset and --image-size: it has to have the images that the denoiser was made for",
        ) from error
    if not isinstance(out, Tensor) or tuple(out.shape) != wanted:
        what = f"a tensor of shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UsageError(
            f"the denoiser {arch} gives {what} for two {images} images, where such images are wanted",
            "name the network that maps noisy images to clean ones; a classifier goes to --checkpoint",
        )
