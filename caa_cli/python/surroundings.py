"""What a call is kept apart from: other threads, and what the caller has switched on in PyTorch for its own code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

from caa_cli.runtime.defaults import usual_defaults

# Switches of the whole process are set meanwhile: results of two calls at a time would be wrong.
_turn = RLock()
# Seconds to wait for a turn before saying so.
_PATIENCE = 5.0


@contextmanager
def apart() -> Iterator[None]:
    """A context in which PyTorch works as in a command, a thread at a time, and random numbers stay the caller's."""
    if not _turn.acquire(timeout=_PATIENCE):
        warnings.warn(
            "waiting: calls of caa take turns, and another thread's has not ended. If its attack is your own and "
            "waits for this thread, neither will end: call caa in the attack's thread",
            stacklevel=5,
        )
        _turn.acquire()
    try:
        with torch.random.fork_rng(devices=[]), usual_defaults():
            yield
    finally:
        _turn.release()
