"""Networks from the user's code: `--arch package.module:factory` names a callable that returns one."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from caa_cli.errors import CaaError, UsageError


def network_from(name: str, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """The network that the callable `name` returns; it takes normalised images of `input_shape`.

    The callable is passed num_classes and input_shape if it has parameters of these names.
    Raises UsageError or CaaError if importing or calling it fails.
    """
    with import_from_here():
        factory = _find(name)
        offered: dict[str, Any] = {"num_classes": num_classes, "input_shape": tuple(input_shape)}
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


@contextmanager
def import_from_here() -> Iterator[None]:
    """A context in which modules of the current folder can be imported.

    Installed modules take precedence: a folder that came with a checkpoint must not shadow torch or torchvision.
    """
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        if here in sys.path:  # the last of them: PYTHONPATH may name this folder too
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


def _find(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"--arch {name!r} is not of the form package.module:factory", "for instance mynet:Net")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's own code runs here
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"--arch {name}: there is no module {error.name} in {Path.cwd()} or among the installed packages",
                "run caa in the folder that holds it, or put that folder in PYTHONPATH",
            ) from error
        raise CaaError(
            f"importing {module_name} failed ({type(error).__name__}: {error})",
            f"try it with: python -c 'import {module_name}'",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"--arch {name}: {module_name}{_elsewhere(found)} has no {attribute}",
                f"it has: {', '.join(_callables(found)) or 'nothing that can be called'}",
            )
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"--arch {name}: {attribute} is a {type(found).__name__} and can't be called",
            "name a function or class that returns the network",
        )
    factory: Callable[..., Any] = found
    return factory


def _elsewhere(module: Any) -> str:
    """The file of a module from outside the current folder, in brackets: it may shadow the intended module."""
    file = getattr(module, "__file__", None)
    return "" if file is None or Path(file).is_relative_to(Path.cwd()) else f" ({file})"


def _callables(module: Any) -> list[str]:
    return [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")][:10]


def _takes(factory: Callable[..., Any], key: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a builtin
        return False
    # torchvision's builders pass **kwargs on to a network that accepts num_classes.
    return any(p.name == key or (p.kind is p.VAR_KEYWORD and key == "num_classes") for p in parameters)
