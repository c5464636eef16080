"""TorchScript files, which hold a network with its code and so are loaded only if trusted."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import torch

from caa_cli.errors import CaaError
from caa_cli.models.contents import Contents
from caa_cli.models.limits import last_line, short

# Operations that do something else in training, and the place of the argument that says so.
_DROPOUTS = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
_TRAINING = {"aten::batch_norm": 5, **{f"aten::{name}": 2 for name in _DROPOUTS}}


def read_torchscript(path: Path, content: bytes) -> Contents:
    """The network in the file; loading may run its code. Raises CaaError for a damaged file, and for a
    network that tracing left in training mode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.9 and later call torch.jit deprecated
            module = torch.jit.load(BytesIO(content), map_location="cpu")
    except Exception as error:  # whatever the first wrong byte leads to
        raise CaaError(
            f"the TorchScript file {path} can't be loaded ({short(last_line(error), 200)})",
            "copy it again, or save it with the PyTorch version that is used here",
        ) from error
    if _trains(module):
        raise CaaError(
            f"the network in {path} was traced while it was in training mode, which is a part of it now",
            "trace it in evaluation mode: torch.jit.trace(model.eval(), …)",
        )
    return Contents("TorchScript", dict(module.state_dict()), module)


def _trains(module: torch.jit.ScriptModule) -> bool:
    """Whether its graph has training as a constant; a scripted network looks at its mode instead."""
    graph = getattr(module, "inlined_graph", None)  # there is none without a `forward`
    return graph is not None and any(
        list(node.inputs())[place].toIValue() is True
        for operation, place in _TRAINING.items()
        for node in graph.findAllNodes(operation)
    )
