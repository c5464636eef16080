"""The group of a training's processes, here of one that believes to be the first of two."""

from __future__ import annotations

import gc
import socket
import weakref

import pytest
import torch
from torch import distributed as dist

from caa_cli.training.devices import Ranks

CPU = torch.device("cpu")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a group of one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))


def test_what_was_reduced_outlives_the_group(alone: None):
    """A thread of the group's that were the last to hold a tensor would wait for Python's lock, and Python for it."""
    ranks = Ranks(0, 2)
    with ranks.joined(CPU):
        values = torch.ones(3)
        kept = weakref.ref(ranks.total(values))
        normalised = torch.nn.BatchNorm1d(4)
        mean = weakref.ref(normalised.running_mean)
        ranks.mean_buffers(normalised)
        assert ranks.agree(2, CPU)
        del values, normalised
        gc.collect()
        assert kept() is not None
        assert mean() is not None
        assert len(ranks._reduced) == 5  # with the variance, and the two of `agree`
    assert not dist.is_initialized()
    gc.collect()
    assert kept() is None
    assert mean() is None
