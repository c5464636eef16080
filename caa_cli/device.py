"""Which device a name means here."""

from __future__ import annotations

import torch

from caa_cli.errors import CaaError, UsageError


def resolve_device(name: str, local: int | None = None) -> torch.device:
    """`auto` is the first GPU, or the CPU. Raises UsageError or CaaError for a device that is not there.

    local: which of this machine's processes asks, where there are several; it gets the GPU of that number, unless
    `name` says which.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local is not None:
        return own_device(local)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r} is no device", "use auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            here = f"this machine has {count} CUDA devices" if count else "this machine has no usable GPU"
            raise CaaError(f"--device {name} is not there: {here}", "use --device cpu, or --device auto")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise CaaError(
                f"--device {name} is not there: this machine has no usable Apple GPU",
                "use --device cpu, or --device auto",
            )
    elif device.type != "cpu":
        raise UsageError(f"--device {name!r} is not supported", "use auto, cpu, cuda or cuda:1")
    return device


def own_device(local: int) -> torch.device:
    """The GPU of one of several processes of this machine. Raises UsageError where there are fewer GPUs."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local >= count:
        raise UsageError(
            f"process {local} of this machine (LOCAL_RANK, counted from 0) has no GPU of its own: there are {count}",
            "start no more processes than GPUs (torchrun --nproc-per-node), or name one for all: --device cuda:0",
        )
    return torch.device("cuda", local)


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)
