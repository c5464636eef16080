"""What the parser refuses, as an error of caa: its own panel would break the line at the terminal's width."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from caa_cli.errors import UsageError

# Where a context keeps the command line that was typed.
TYPED = "caa.typed"


def check_empty(words: Sequence[str]) -> None:
    """Raise UsageError for an empty word, as "$MODEL" is where it is not set: as a path it would be this folder."""
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            what = option or (f"the word after {before}" if before else "the first word")
            raise UsageError(f"{what} is empty", "give a value, or leave it out; is a variable of the shell not set?")


def check_files(words: Sequence[str], parameters: Iterable[Any]) -> None:
    """Raise UsageError for a folder where a file has to be named: a path does not keep the slash that says so."""
    files = {name: p.metavar for p in parameters if (p.metavar or "").startswith("FILE.") for name in p.opts}
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "=", word)
        if equals and value.endswith("/") and option in files:
            name = option[2:] + Path(files[option]).suffix
            raise UsageError(f"{option} {value} names no file but a folder", f"for instance {option} {value}{name}")


def refusal(context: typer.Context, error: Any) -> UsageError:
    """The parser's message, with what to type instead."""
    if type(error).__name__ == "NoSuchOption":  # of Click's, which typer does not export
        return _no_such_option(context, error.option_name)
    problem, hint = error.format_message(), f"{context.command_path} --help"
    extra = re.search(r"unexpected extra argument.*\((.+)\)", problem)
    if extra and any(option.name == "checkpoint" for option in context.command.params):
        problem = f"{context.command_path} takes options only, not {extra[1]}"
        hint = _with_checkpoint(context)
    return UsageError(problem, hint)


def _with_checkpoint(context: typer.Context) -> str:
    """The command line that was typed, with --checkpoint before the words that belong to no option."""
    words = shlex.split(context.meta[TYPED])
    if any(word.partition("=")[0] == "--checkpoint" for word in words):
        return f"leave it out, or put a value that has blanks into quotes; {context.command_path} --help"
    name = context.command_path.split()
    _, extra, _ = context.command.make_parser(context).parse_args(words[len(name) :])
    for word in extra:
        last = len(words) - 1 - words[::-1].index(word)
        words.insert(last, "--checkpoint")
    return shlex.join(words)


def _no_such_option(context: typer.Context, unknown: str) -> UsageError:
    """The error for an option that the command lacks, with those that may be meant or the commands that have it."""
    problem, help_, word = f"{context.command_path} has no {unknown}", f"{context.command_path} --help", unknown[2:]
    takes_value = {
        name[2:]: not getattr(option, "is_flag", False)
        for option in context.command.get_params(context)
        for name in option.opts
        if name.startswith("--")
    }
    # --attack where there is --attacks, else --batch for --batch-size and --epsilon for --pgd-epsilon
    meant = [name for name in takes_value if name == f"{word}s"] or [
        name
        for name, valued in takes_value.items()
        if (len(word) > 2 and name.startswith(word)) or (valued and name.endswith(f"-{word}"))
    ]
    commands = {} if context.parent is None else getattr(context.parent.command, "commands", {})
    others = [name for name, command in commands.items() if any(unknown in each.opts for each in command.params)]
    if others and not meant:
        return UsageError(f"{problem}: it is an option of caa {', caa '.join(others)}", f"caa {others[0]} --help")
    parts = [name for name in takes_value if len(word) > 2 and f"-{word}" in name]  # --eps for --pgd-epsilon
    meant = meant or parts or get_close_matches(word, takes_value, 1)
    return UsageError(problem, f"did you mean --{' or --'.join(meant)}? {help_}" if meant else help_)
