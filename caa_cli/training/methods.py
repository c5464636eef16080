"""The training methods by name."""

from __future__ import annotations

from typing import Any

from caa_cli.training.consistency import Consistency
from caa_cli.training.gaussian import Gaussian
from caa_cli.training.macer import Macer
from caa_cli.training.smoothadv import SmoothAdv
from caa_cli.training.stability import Stability
from caa_cli.training.step import Method

METHODS: dict[str, type[Gaussian] | type[Stability] | type[SmoothAdv] | type[Macer] | type[Consistency]] = {
    "gaussian": Gaussian,
    "stability": Stability,
    "smoothadv": SmoothAdv,
    "macer": Macer,
    "consistency": Consistency,
}


def build_method(name: str, settings: dict[str, Any]) -> Method:
    """settings: by the names of the method's fields, as `TrainPlan.method_settings` gives them."""
    return METHODS[name](**settings)
