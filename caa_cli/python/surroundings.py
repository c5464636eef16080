"""What a call is kept apart from: other threads, and what the caller has switched on in PyTorch for its own code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock

import torch

# Passes share memory, a generator of noise, and switches of the whole process: results of two at a time are wrong.
_turn = RLock()


@contextmanager
def apart() -> Iterator[None]:
    """A context in which PyTorch works as in a command, a thread at a time, and random numbers stay the caller's."""
    with _turn, torch.random.fork_rng(devices=[]), torch.inference_mode(False), ExitStack() as before:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                before.enter_context(torch.autocast(kind, enabled=False))
        if torch.empty(0).device.type != "cpu":  # the default device
            before.enter_context(torch.device("cpu"))
        before.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        yield
