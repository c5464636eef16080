"""Networks that a factory of the user's returns with their weights."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from caa_cli.errors import UsageError
from caa_cli.models.contents import Contents
from caa_cli.models.factory import made_by, parse_call
from caa_cli.models.libraries import LIBRARIES, library_preprocessing
from caa_cli.models.preprocessing import Origin


def read_factory(name: str) -> tuple[Contents, str, int]:
    """(the network that the factory returns, SHA-256 of its weights, their size in bytes).

    Raises UsageError if the factory returns other weights each time, as one does that only initialises them.
    """
    call = parse_call("--arch", name)
    network = made_by("--arch", name, {}).eval()
    sha256 = state_digest(network)
    if state_digest(made_by("--arch", name, {}).eval()) != sha256:
        hint = "add --checkpoint FILE"
        if call.source in LIBRARIES:
            asked = LIBRARIES[call.source]
            hint += f', or have {call.source} download its own: --arch "{call.source}:{call.name}({asked})"'
        raise UsageError(f"{name} returns other weights at every call: it holds none of its own", hint)
    origin = Origin(name, library_preprocessing(call.source, call.name, call.settings, sha256))
    state = dict(network.state_dict())
    contents = Contents(f"the network of {call.source}:{call.name}", state, network, origin=origin)
    return contents, sha256, sum(tensor.nbytes for tensor in state.values())


def state_digest(network: nn.Module) -> str:
    """The SHA-256 of a network's parameters and buffers, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()
