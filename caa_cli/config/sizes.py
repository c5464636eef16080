"""Amounts of memory in words: parsed from options, and shown."""

from __future__ import annotations

import math
import re

from caa_cli.errors import UsageError

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
_UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}


def parse_size(text: str, option: str) -> int:
    """Bytes of `4GiB`, `800MB` or `1.5 GB`. Raises UsageError."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(match[2].upper()) if match else None
    size = float(match[1]) * unit if match is not None and unit is not None else math.inf
    if math.isinf(size):
        raise UsageError(
            f"{option} {text!r} is no amount of memory", f"for instance {option} 4GiB, or {option} 800MB"
        )
    return int(size)


def show_size(size: float) -> str:
    """An amount in MB, from 10 GB in GB."""
    return f"{size / 1e9:.2f} GB" if size >= 10e9 else f"{size / 1e6:.0f} MB"
