"""Networks from the user's code: `--arch package.module:factory` names a callable that returns one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime.user_code import find_callable, import_from


def network_from(name: str, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """The network that the callable `name` returns; it takes normalised images of `input_shape`.

    The callable is passed num_classes and input_shape if it has parameters of these names.
    Raises UsageError or CaaError if importing or calling it fails.
    """
    return made_by("--arch", name, {"num_classes": num_classes, "input_shape": tuple(input_shape)})


def made_by(option: str, name: str, offered: Mapping[str, Any]) -> nn.Module:
    """The network that the callable `name` returns, called with those of the arguments `offered` that it takes.

    option: that names it. Raises UsageError or CaaError if importing or calling it fails.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"{option} {name!r} is not of the form package.module:factory", "for instance mynet:Net")
    with import_from(Path.cwd()):
        use = "name a function or class that returns the network"
        factory = find_callable(f"{option} {name}", name, use, files=True)
        wanted = {key: value for key, value in offered.items() if _takes(factory, key)}
        try:
            network = factory(**wanted)
        except (Exception, SystemExit) as error:  # the user's own code
            given = ", ".join(f"{key}={value}" for key, value in wanted.items())
            raise CaaError(
                f"{name}({given}) failed ({type(error).__name__}: {error})",
                "try it in Python; it must return the network without other arguments",
            ) from error
    if not isinstance(network, nn.Module):
        raise CaaError(
            f"{name} returned a {type(network).__name__}, not a torch.nn.Module",
            "name a callable that returns the network, such as the network's class",
        )
    return network


def _takes(factory: Callable[..., Any], key: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return False
    # torchvision's builders pass **kwargs on to a network that accepts num_classes.
    return any(p.name == key or (p.kind is p.VAR_KEYWORD and key == "num_classes") for p in parameters)
