"""Errors of the Python functions: they name settings as Python does, and an interruption keeps what is done."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from caa_cli.errors import CaaError

P = ParamSpec("P")
R = TypeVar("R")

# A flag, and its value: a number, the capitals that stand for one, or a word that ends the clause. Before that a
# command to type, which stays one.
_FLAG = re.compile(
    r"\bcaa (?!or\b)[a-z]+ .*"
    r"|--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?: ([A-Z]+\b|[0-9]+(?:\.[0-9]+)?)| (?!out\b)([a-z][a-z0-9-]*)(?=[,;]|$))?"
)

# Arguments that Python calls otherwise.
_CALLED = {"attack": "method"}

# Flags without a value.
_SWITCHES = {"download", "trust-checkpoint"}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in `attack` or `certify`. results: what the function would have returned of the finished images."""

    def __init__(self, results: Any) -> None:
        super().__init__("interrupted: the exception's `results` has the images that were finished")
        self.results = results


def plain_names(function: Callable[P, R]) -> Callable[P, R]:
    """The function with errors that say `verify_samples` where the command line says `--verify-samples`."""

    @functools.wraps(function)
    def call(*arguments: P.args, **settings: P.kwargs) -> R:
        try:
            return function(*arguments, **settings)
        except CaaError as error:
            error.problem = plain(error.problem)
            error.hint = None if error.hint is None else plain(error.hint)
            raise

    return call


def plain(text: str) -> str:
    """The text with settings named as Python does."""

    def name(match: re.Match[str]) -> str:
        flag, value, word = match.groups()
        if flag is None:
            return match[0]
        given = value or (word and repr(word)) or ("True" if flag in _SWITCHES else "")
        return _CALLED.get(flag, flag.replace("-", "_")) + (f"={given}" if given else "")

    return _FLAG.sub(name, text)
