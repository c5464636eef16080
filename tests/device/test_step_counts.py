"""A step of an attack keeps a GPU busy: few kernels, and hardly a wait, counted on a pretended one."""

from __future__ import annotations

import pytest
from step_counts import count_steps, totals

from caa_cli.config.attacks import ATTACKS

# The most kernels of a step, and the most times that the host waits in one, for a value or with a copy. Where an
# attack asks for less than it may, its limit comes down; the aim: 250 kernels (150 without certificates), 4 waits.
LIMITS = {
    "caa": (370, 30),
    "caa-newton": (540, 54),
    "pgd": (150, 13),
    "cw": (215, 12),
    "deepfool": (370, 20),
    "autoattack": (260, 16),
    "ddn": (180, 12),
    "fmn": (215, 12),
    "alma": (700, 12),
    "pdgd": (180, 3),
    "sdf": (480, 4),
    "apgd-min": (290, 4),
}


def test_every_attack_has_a_limit():
    assert LIMITS.keys() == ATTACKS.keys()


@pytest.mark.parametrize("attack", LIMITS)
def test_a_step_asks_little_of_the_device(attack: str):
    steps, operations = count_steps(attack, last=13)
    assert steps >= 4, "too few to say"
    counted = totals(steps, operations)
    kernels, waits = LIMITS[attack]
    assert counted["kernels"] <= kernels
    assert counted["syncs"] + counted["uploads"] <= waits, [
        f"{count / steps:.1f} {kind} {operation} {line}"
        for (kind, operation, line), count in operations.most_common()
        if kind != "kernel"
    ]
