"""The `target` of `attack` as Python gives it: what the flag takes, or a class for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.targets import Classes, target_or_file
from caa_cli.data.images import ImageArrays
from caa_cli.python.inputs import as_tensor, class_numbers
from caa_cli.run.targets import Targets
from caa_cli.smoothing.classifier import SmoothedClassifier

Target = int | str | Sequence[int] | NDArray[Any] | Tensor

# What stands for an array in a plan.
_ARRAY = "array"


def in_plan(target: Target | None) -> dict[str, Any]:
    """The settings of a plan for this target."""
    if target is None:
        return {}
    if isinstance(target, str):
        word, path = target_or_file(target)
        return {"target": word, "target_file": path}
    number = as_tensor("target", target)
    return {"target": str(number.item()) if number.ndim == 0 else _ARRAY}


def targets_of(target: Target | None, plan: AttackPlan, model: SmoothedClassifier, arrays: ImageArrays) -> Targets:
    """The target of each image. Raises UsageError where there is no such class, or not one for each image."""
    classes = Classes(model.num_classes, model.class_names)
    if plan.target == _ARRAY:
        each = class_numbers("target", target, len(arrays)).tolist()
        numbers = {index: classes.number_of("target", c) for index, c in zip(arrays.indices, each, strict=True)}
        targets = Targets(listed=numbers)
    else:
        size = max(arrays.indices, default=0) + 1 if plan.target_file is None else 2**63
        targets = Targets.of(plan.with_classes(classes), size, classes)
    targets.check(plan, arrays, arrays.indices)
    return targets
