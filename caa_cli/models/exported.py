"""Files of torch.export (`.pt2`): a network as a graph of operations, with its weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import Node

from caa_cli.errors import CaaError
from caa_cli.models.contents import Contents
from caa_cli.models.limits import last_line, short


class _Graph(nn.Module):
    """An exported network, whose mode was settled by its export; the graph itself refuses to be asked for another."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def train(self, mode: bool = True) -> _Graph:
        return self

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.graph(x)
        return logits


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without torch.export's log, in which a file of its older format is a traceback."""
    logger = logging.getLogger("torch.export")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def read_exported(path: Path, content: bytes) -> Contents:
    """The network in the file; loading may run code.

    Raises CaaError for a damaged file, or one for one size of batch.
    """
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.export.load(BytesIO(content))
            graph = program.module()
    except Exception as error:  # whatever the first wrong byte leads to
        raise CaaError(
            f"the file {path} of torch.export can't be loaded ({short(last_line(error), 200)})",
            "copy it again, or export it with the PyTorch version that is used here",
        ) from error
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) != 1 or not getattr(inputs[0], "shape", ()):
        raise CaaError(
            f"the network in {path} takes something other than images", "export one that takes images alone"
        )
    if any(map(_trains, program.graph.nodes)):
        raise CaaError(
            f"the network in {path} was exported while it was in training mode, which is a part of it now",
            "export it in evaluation mode: torch.export.export(model.eval(), …)",
        )
    # A dimension that is not fixed is a symbol.
    if isinstance(batch := inputs[0].shape[0], int):
        raise CaaError(
            f"the network in {path} was exported for batches of exactly {batch}, and caa's have other sizes",
            "export it for any: torch.export.export(model, (images,), dynamic_shapes=({0: Dim('batch')},))",
        )
    return Contents("torch.export", dict(graph.state_dict()), _Graph(graph))


def _trains(node: Node) -> bool:
    """Whether a node of a graph is told that this is training, as dropout and batch normalisation are."""
    arguments = getattr(getattr(node.target, "_schema", None), "arguments", ())
    values = {argument.name: value for argument, value in zip(arguments, node.args, strict=False)} | node.kwargs
    return values.get("train") is True or values.get("training") is True
