"""A step of an attack keeps a GPU busy: few kernels, and hardly a wait, counted on a pretended one."""

from __future__ import annotations

import pytest
from step_counts import count_steps, totals

from caa_cli.config.attacks import ATTACKS

# The most times that the host waits in a step, for a value or with a copy; and the most kernels, where not LARGER.
WAITS, KERNELS = 4, 150
# Steps with certificates, with several gradients, or with loops of their own.
LARGER = {
    "caa": 250,
    "caa-newton": 310,
    "deepfool": 225,
    "sdf": 490,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_step_asks_little_of_the_device(attack: str):
    steps, operations = count_steps(attack, samples=40)  # enough: kernels hardly depend on how many there are
    assert steps >= 6, "too few to say"
    counted = totals(steps, operations)
    assert counted["kernels"] <= LARGER.get(attack, KERNELS)
    assert counted["syncs"] + counted["uploads"] <= WAITS, [
        f"{count / steps:.1f} {kind} {operation} {line}"
        for (kind, operation, line), count in operations.most_common()
        if kind != "kernel"
    ]
