"""The software and hardware that a result was made with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from caa_cli import __version__


def environment(device: str, threads: int) -> dict[str, Any]:
    """The versions of packages, the platform and the device, as results record them."""
    packages: dict[str, str | None] = {}
    for name in ("torch", "torchvision", "numpy", "scipy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "caa": __version__,
        "python": platform.python_version(),
        **packages,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": threads,
        "device": device,
    }
