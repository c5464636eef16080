"""Code of the user's, by name: `package.module:name`, or `path/file.py:name`."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime.collector import importing


@contextmanager
def import_from(folder: Path) -> Iterator[None]:
    """A context in which modules of this folder can be imported.

    Installed modules take precedence: a folder that came with a checkpoint must not shadow torch or torchvision.
    """
    here = str(folder)
    sys.path.append(here)
    try:
        yield
    finally:
        if here in sys.path:  # the last of them: PYTHONPATH may name this folder too
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]


def find_callable(option: str, name: str, use: str, files: bool = False) -> Callable[..., Any]:
    """What `name` names: `module:attribute`, or with `files` also `file.py:attribute`.

    option: for messages, with its value. use: what to name instead of something that can't be called. Raises
    UsageError where there is no such thing, and CaaError where its module can't be imported.
    """
    source, _, attribute = name.partition(":")
    # Every run takes torch; were it first imported by the user's code, a signal could be lost in it.
    with importing():
        import torch  # noqa: F401
    # What the user's code prints at its import must not mix with a result on stdout.
    with redirect_stdout(sys.stderr):
        module = _file(option, Path(source)) if files and is_file(source) else _module(option, source)
    named: Any = module
    for part in attribute.split("."):
        if not hasattr(named, part):
            raise UsageError(
                f"{option}: {source}{_elsewhere(source, named)} has no {attribute}", _what_it_has(attribute, named)
            )
        named = getattr(named, part)
    if not callable(named):
        raise UsageError(f"{option}: {attribute} is a {type(named).__name__} and can't be called", use)
    return named  # type: ignore[no-any-return]


def is_file(source: str) -> bool:
    """Whether what stands before the colon is a path, not a module."""
    return source.endswith(".py") or "/" in source


def file_and_digest(function: Callable[..., Any]) -> tuple[str | None, str]:
    """The file that defines a callable and its SHA-256, hexadecimal; where there is no file, None and that of its
    text."""
    code = inspect.unwrap(function)
    while isinstance(code, functools.partial):
        code = code.func
    if not inspect.isroutine(code) and not inspect.isclass(code):
        code = type(code)
    try:
        file = inspect.getsourcefile(code) or ""
        return file, hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except (OSError, TypeError):
        pass
    try:
        text = inspect.getsource(code)
    except (OSError, TypeError):
        text = repr(getattr(getattr(code, "__code__", None), "co_code", code))
    return None, hashlib.sha256(text.encode()).hexdigest()


def _file(option: str, path: Path) -> ModuleType:
    """The module of a file, under a name of its own, so that another file of the same name is another module."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # no path has a null character
        there = sorted(str(other) for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = get_close_matches(str(path), there, 1) or there[:5]
        raise UsageError(
            f"{option}: {path} can't be read ({getattr(error, 'strerror', error)})",
            f"there is {', '.join(near)}" if near else f"there is no Python file in {path.parent}",
        ) from error
    name = f"caa_{hashlib.sha256(str(path.resolve()).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"{option}: {path} is no Python file", "name a file that ends in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        with import_from(path.resolve().parent):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        raise CaaError(
            f"importing {path} failed ({type(error).__name__}: {error})", f"try it with: python {path}"
        ) from error
    return module


def _module(option: str, name: str) -> ModuleType:
    with import_from(Path.cwd()):
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:  # the user's own code runs here
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                raise UsageError(
                    f"{option}: there is no module {error.name} in {Path.cwd()} or among the installed packages",
                    "run caa in the folder that holds it, or put that folder in PYTHONPATH",
                ) from error
            raise CaaError(
                f"importing {name} failed ({type(error).__name__}: {error})",
                f"try it with: python -c 'import {name}'",
            ) from error


def _elsewhere(source: str, module: Any) -> str:
    """The file of a module from outside the current folder, in brackets: it may shadow the intended module."""
    file = getattr(module, "__file__", None)
    outside = file is not None and not is_file(source) and not Path(file).is_relative_to(Path.cwd())
    return f" ({file})" if outside else ""


def _what_it_has(attribute: str, holder: Any) -> str:
    """Names of what can be called, the nearest first."""
    names = [key for key, value in vars(holder).items() if callable(value) and not key.startswith("_")]
    near = get_close_matches(attribute, names)
    return f"it has: {', '.join([*near, *(n for n in names if n not in near)][:10]) or 'nothing that can be called'}"
