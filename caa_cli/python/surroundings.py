"""What a call is kept apart from: other threads, and what the caller has switched on in PyTorch for its own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

from caa_cli.runtime.defaults import usual_defaults

# Switches of the whole process are set meanwhile: results of two calls at a time would be wrong.
_turn = RLock()


@contextmanager
def apart() -> Iterator[None]:
    """A context in which PyTorch works as in a command, a thread at a time, and random numbers stay the caller's."""
    with _turn, torch.random.fork_rng(devices=[]), usual_defaults():
        yield
