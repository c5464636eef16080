"""Networks from code by name: `package.module:factory`, `file.py:factory`, `timm:NAME` and `torchvision:NAME`.

Literal arguments may follow in brackets: `mynet:Net(40, widen=2)`.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.contents import on_one_device
from caa_cli.models.libraries import LIBRARIES, library_factory
from caa_cli.runtime.user_code import find_callable, import_from


@dataclass(frozen=True)
class FactoryCall:
    """source: a module, a file, or a library.  name: of the callable in it.  arguments, settings: to call it with."""

    source: str
    name: str
    arguments: tuple[Any, ...]
    settings: dict[str, Any]

    def factory(self, option: str) -> Callable[..., Any]:
        """The callable itself. Raises UsageError or CaaError where there is none."""
        if self.source in LIBRARIES:
            return library_factory(option, self.source, self.name)
        use = "name a function or class that returns the network"
        return find_callable(option, f"{self.source}:{self.name}", use, files=True)


def parse_call(option: str, text: str) -> FactoryCall:
    """What `source:name` or `source:name(arguments)` names. Raises UsageError if an argument is no literal."""
    source, _, call = text.partition(":")
    name, bracket, _ = call.partition("(")
    if not source or not name:
        raise UsageError(f"{option} {text!r} is not of the form package.module:factory", "for instance mynet:Net")
    if not bracket:
        return FactoryCall(source, name, (), {})
    example = f"{source}:{name.strip()}(10, width=2, kind='small')"
    try:
        parsed = ast.parse(f"f{call.removeprefix(name)}", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # too deep a nesting is one of the latter
        raise UsageError(f"{option} {text!r} can't be read as a call", f"for instance {example}") from error
    if not isinstance(parsed, ast.Call) or not isinstance(parsed.func, ast.Name):
        raise UsageError(f"{option} {text!r} is more than one call", f"for instance {example}")

    def value(node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, RecursionError, MemoryError) as error:
            raise UsageError(
                f"{option} {text!r}: the argument {ast.unparse(node)} is no literal",
                f"give numbers, texts in quotes, True, None, or lists of these, for instance {example}",
            ) from error

    settings = {word.arg or "": value(word.value) for word in parsed.keywords}
    if "" in settings:
        raise UsageError(f"{option} {text!r}: ** is no argument", f"name each one, for instance {example}")
    return FactoryCall(source, name.strip(), tuple(value(node) for node in parsed.args), settings)


def network_from(name: str, num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """The network that the callable `name` returns; it takes normalised images of `input_shape`.

    The callable is passed num_classes and input_shape if it has parameters of these names, and `name` doesn't give
    them. Raises UsageError or CaaError if importing or calling it fails.
    """
    return made_by("--arch", name, {"num_classes": num_classes, "input_shape": tuple(input_shape)})


def made_by(option: str, name: str, offered: Mapping[str, Any]) -> nn.Module:
    """The network that the callable `name` returns, called with those of the arguments `offered` that it takes.

    It is in float32 on the CPU, wherever the callable puts it.  option: that names it. Raises UsageError or CaaError
    if importing or calling it fails.
    """
    call = parse_call(option, name)
    with import_from(Path.cwd()):
        factory = call.factory(f"{option} {name}")
        wanted = {key: value for key, value in offered.items() if _takes(factory, key, call)}
        try:
            network = factory(*call.arguments, **call.settings, **wanted)
        except (Exception, SystemExit) as error:  # the user's own code
            given = [
                *map(repr, call.arguments),
                *(f"{key}={value!r}" for key, value in {**call.settings, **wanted}.items()),
            ]
            raise CaaError(
                f"{call.source}:{call.name}({', '.join(given)}) failed ({type(error).__name__}: {error})",
                "try it in Python; arguments that it needs go into brackets: "
                f"{option} '{call.source}:{call.name}(10, width=2)'",
            ) from error
    if not isinstance(network, nn.Module):
        raise CaaError(
            f"{name} returned a {type(network).__name__}, not a torch.nn.Module",
            "name a callable that returns the network, such as the network's class",
        )
    for entry, value in network.state_dict().items():
        if not isinstance(value, Tensor) or is_lazy(value) or value.is_meta:
            what = "no tensor" if not isinstance(value, Tensor) else "a tensor without values"
            raise CaaError(
                f"{name} returned a network that can't be used: its {entry} is {what}",
                "return one that is complete, its parameters and buffers ordinary tensors",
            )
    return on_one_device(network).cpu().float()


def _takes(factory: Callable[..., Any], key: str, call: FactoryCall) -> bool:
    """Whether the factory has a parameter of this name, to which the call gives no value."""
    try:
        signature = inspect.signature(factory)
        filled = signature.bind_partial(*call.arguments, **call.settings).arguments
    except (TypeError, ValueError):  # a builtin, or arguments that calling it will refuse
        return False
    # torchvision's builders pass **kwargs on to a network that accepts num_classes.
    return (
        key not in filled
        and key not in call.settings
        and any(
            p.name == key or (p.kind is p.VAR_KEYWORD and key == "num_classes") for p in signature.parameters.values()
        )
    )
