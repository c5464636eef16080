"""No result depends on the order in which a GPU adds up: where that is left to chance, sums are taken in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from step_counts import demo_classifier
from torch.utils._python_dispatch import TorchDispatchMode

from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.choices import VOTES
from caa_cli.data.datasets import open_dataset
from caa_cli.run.registry import build_attack
from caa_cli.run.starting_points import StartingPoints
from caa_cli.smoothing.stein import SteinEstimator

# Sums that torch.use_deterministic_algorithms refuses on a GPU.
BY_CHANCE = {f"aten::{name}{end}" for name in ("cumsum", "index_add", "scatter_add") for end in ("", "_")}


class Sums(TorchDispatchMode):
    """Notes the sums by chance of numbers that are shorter than float64."""

    def __init__(self) -> None:
        super().__init__()
        self.short: set[str] = set()
        self.seen = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, result = function._schema.name, function(*args, **(kwargs or {}))
        if name in BY_CHANCE:
            self.seen += 1
            if result.is_floating_point() and result.dtype != torch.float64:
                self.short.add(name)
        return result


@pytest.mark.parametrize(("attack", "gradient"), [*((name, "model") for name in ATTACKS), ("caa-newton", VOTES)])
def test_sums_by_chance_are_taken_in_float64(attack: str, gradient: str):
    data, by_votes = open_dataset("demo", None, "test"), gradient == VOTES
    plan = AttackPlan(checkpoint="demo", attack=attack, samples=60, gradient=gradient, iterations=6)
    near = StartingPoints(data).near(data.image(8), data.label(8)) if by_votes else None
    search = Search(build_attack(plan), demo_classifier("cpu", gradients=SteinEstimator() if by_votes else None), 1)
    with Sums() as sums:
        search.join([Example(8, data.image(8), data.label(8), 0.3, near)])
        for _ in range(6):
            search.advance()
    assert not sums.short
    assert sums.seen > 0 or not attack.startswith("caa-newton")
