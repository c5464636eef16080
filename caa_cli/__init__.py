"""caa: certification-aware attacks on classifiers defended by randomised smoothing.

From Python: `import caa_cli as caa`, then `caa.load`, `caa.certify`, `caa.attack`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caa_cli.errors import CaaError, UsageError
    from caa_cli.python.errors import Interrupted
    from caa_cli.python.model import load, load_images
    from caa_cli.python.results import AttackResults, CertifyResults
    from caa_cli.python.runs import attack, certify
    from caa_cli.smoothing.classifier import SmoothedClassifier

__version__ = "0.14.0"

__all__ = [
    "AttackResults",
    "CaaError",
    "CertifyResults",
    "Interrupted",
    "SmoothedClassifier",
    "UsageError",
    "__version__",
    "attack",
    "certify",
    "load",
    "load_images",
]

# Where the public names come from: torch is imported with the first of them that needs it.
_HOMES = {
    "CaaError": "caa_cli.errors",
    "UsageError": "caa_cli.errors",
    "Interrupted": "caa_cli.python.errors",
    "load": "caa_cli.python.model",
    "load_images": "caa_cli.python.model",
    "AttackResults": "caa_cli.python.results",
    "CertifyResults": "caa_cli.python.results",
    "attack": "caa_cli.python.runs",
    "certify": "caa_cli.python.runs",
    "SmoothedClassifier": "caa_cli.smoothing.classifier",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What a notebook completes: the public names."""
    return __all__
