"""PyTorch's defaults: what a caller may have set for work of his own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from caa_cli.runtime.device import repeatable


@contextmanager
def usual_defaults() -> Iterator[None]:
    """A context with the defaults of a new process: tensors are float32, on the CPU, and may take part in gradients,
    and no operation chooses a precision of its own (autocast, TF32) or an order of its own. Afterwards they are as
    before."""
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(repeatable())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        # torch.get_default_device() fails after a None was set, in PyTorch 2.6.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
