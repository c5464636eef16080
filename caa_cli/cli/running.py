"""How a subcommand runs: its errors, its end by a signal, its display, and the command that goes on with it."""

from __future__ import annotations

import errno
import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from caa_cli.cli.environment import check_variables, name_variables, origins, variable_of
from caa_cli.cli.values import shortened
from caa_cli.errors import INTERRUPTED, WRONG_USAGE, CaaError, MissingSettingsError, UsageError
from caa_cli.runtime import streams
from caa_cli.runtime.launchers import variables
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.signals import termination_interrupts
from caa_cli.runtime.terminal import has_colours, is_live

# Click's UsageError, which typer does not export: an option that is not known, or misses its value.
_Refused: Any = typer.BadParameter.__base__
# Where a context keeps the command line that was typed.
_TYPED = "caa.typed"
Function = TypeVar("Function", bound=Callable[..., None])


class Command(TyperCommand):
    """A subcommand: it reads its options' environment variables, and shows errors as a message and an exit code."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        name_variables(self)

    def format_help(self, context: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        with help_style():
            super().format_help(context, formatter)

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        context.meta[_TYPED] = shlex.join([*context.command_path.split(), *args])
        with refusals_shown(context):
            _check_empty(args if not context.resilient_parsing else [])
            return super().parse_args(context, args)

    def invoke(self, context: typer.Context) -> Any:  # type: ignore[override]
        with errors_shown(context):
            check_variables(context)
            check_folder()
            given = context.params
            if not given.get("quiet") or given.get("json") or given.get("format", "table") != "table":
                streams.check_stdout()
            return super().invoke(context)


class Group(TyperGroup):
    """`caa` itself: a subcommand that is not known is shown as any other error."""

    def format_help(self, context: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        with help_style():
            super().format_help(context, formatter)

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args:  # the help is shown
            return super().parse_args(context, args)
        with refusals_shown(context):
            return super().parse_args(context, args)

    def resolve_command(self, context: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        with refusals_shown(context):
            return super().resolve_command(context, args)


def _check_empty(words: Sequence[str]) -> None:
    """Raise UsageError for an empty word, as "$MODEL" is where it is not set: as a path it would be this folder."""
    for before, word in pairwise(["", *words]):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            what = option or (f"the word after {before}" if before else "the first word")
            raise UsageError(f"{what} is empty", "give a value, or leave it out; is a variable of the shell not set?")


def check_folder() -> None:
    """Raise CaaError where the current folder has been deleted: no path could be resolved."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise CaaError("the current folder does not exist any more", "cd to one that does") from error


@contextmanager
def refusals_shown(context: typer.Context) -> Iterator[None]:
    """A context in which what the parser refuses is shown as an error of caa; while a shell completes, nothing is."""
    if context.resilient_parsing:
        yield
        return
    with errors_shown(context):
        try:
            yield
        except _Refused as error:
            check_variables(context)  # a misspelt one may be why a value is missing
            raise _refusal(context, error) from error


def _refusal(context: typer.Context, error: Any) -> UsageError:
    """The parser's message as an error of caa: its own panel would break the line at the terminal's width."""
    if type(error).__name__ == "NoSuchOption":  # of Click's, which typer does not export
        return _no_such_option(context, error.option_name)
    parameter = getattr(error, "param", None)
    variable = variable_of(context, parameter.name) if parameter is not None and parameter.name else None
    origin = f" (from the environment variable {variable})" if variable is not None else ""
    problem, hint = error.format_message() + origin, f"{context.command_path} --help"
    extra = re.search(r"unexpected extra argument.*\((.+)\)", problem)
    if extra and any(option.name == "checkpoint" for option in context.command.params):
        problem = f"{context.command_path} takes options only, not {extra[1]}"
        hint = _with_checkpoint(context)
    return UsageError(problem, hint)


def _with_checkpoint(context: typer.Context) -> str:
    """The command line that was typed, with --checkpoint before the words that belong to no option."""
    words = shlex.split(context.meta[_TYPED])
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
    meant = meant or get_close_matches(word, takes_value, 1)
    return UsageError(problem, f"did you mean --{' or --'.join(meant)}? {help_}" if meant else help_)


@contextmanager
def help_style() -> Iterator[None]:
    """A context in which typer's help has colours where caa has them (typer alone has them in every log on GitHub),
    and every option's name in full: where a column is too narrow for one, typer alone leaves its end out."""
    from typer import rich_utils

    def in_full(highlight: Callable[[str], Any]) -> Callable[[str], Any]:
        def highlighted(text: str) -> Any:
            shown = highlight(text)
            shown.overflow = "fold"
            return shown

        return highlighted

    style: dict[str, Any] = {"FORCE_TERMINAL": is_live(sys.stdout) or has_colours(sys.stdout)}
    style |= {name: in_full(getattr(rich_utils, name)) for name in ("highlighter", "negative_highlighter")}
    before = {name: getattr(rich_utils, name) for name in style}
    vars(rich_utils).update(style)
    try:
        yield
    finally:
        vars(rich_utils).update(before)


@contextmanager
def errors_shown(context: typer.Context) -> Iterator[None]:
    """A CaaError that is raised meanwhile ends the command, with its message and exit code."""
    try:
        yield
    except CaaError as error:
        if isinstance(error, MissingSettingsError):
            error.hint = " ".join([context.meta[_TYPED], *error.flags])
        if isinstance(error, UsageError):
            error.problem += origins(context, error.problem)
        show_error(error)
        raise typer.Exit(error.exit_code) from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # with which pathlib's questions, such as exists(), fail too
            raise
        problem = f"the name of a file is too long: {shortened(str(error.filename))}"
        show_error(UsageError(problem, "choose a shorter one"))
        raise typer.Exit(WRONG_USAGE) from error


def show_error(error: CaaError) -> None:
    from caa_cli.display import Display

    Display().error(error.problem, error.hint)


def guarded(command: Function) -> Function:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into exit code 130."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            with termination_interrupts():
                command(*arguments, **options)
        except KeyboardInterrupt as error:
            kept = "whatever was finished is kept beside --output (see --resume)"
            # One that can't be resumed has nothing to keep.
            print(f"interrupted; {kept if 'resume' in options else 'repeat the command'}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error

    return run  # type: ignore[return-value]


def resume_command(shard: Shard | None = None) -> str:
    """The command line that was typed, with --resume."""
    return f"{command_line(shard)} --resume"


def command_line(shard: Shard | None = None) -> str:
    """The command line that was typed, without --resume and --overwrite; in front the variables it was read with.

    They are those with settings of the subcommand (CAA_ATTACK_SAMPLES), and those that say which shard it is.
    """
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    prefix = f"CAA_{(words or [''])[0].upper()}_"
    left_out = {f"{prefix}RESUME", f"{prefix}OVERWRITE"}
    set_variables = {
        name: os.environ[name] for name in sorted(os.environ) if name.startswith(prefix) and name not in left_out
    }
    if shard is not None and shard.chosen is not None:
        set_variables |= variables(os.environ)
    in_front = [f"{name}={shlex.quote(value)}" for name, value in set_variables.items()]
    return " ".join([*in_front, shlex.join(["caa", *words])])


def requirements(texts: Sequence[str] | None) -> tuple[Any, ...]:
    """The Requirements of --require. Raises UsageError for what is none."""
    from caa_cli.results.requirements import Requirement

    return tuple(Requirement.parse(text) for text in texts or ())


def surroundings(shard: Shard, given: Mapping[str, Any]) -> tuple[Any, str, tuple[Any, ...]]:
    """(display, command that goes on, requirements) of a run, from its options."""
    return display_of(shard, given["quiet"], given["json"]), resume_command(shard), requirements(given["require"])


def display_of(shard: Shard, quiet: bool, json: bool) -> Any:
    """The Display; processes that were launched together share a terminal."""
    from caa_cli.display import Display

    return Display(quiet, json, str(shard) if shard.launched else "")
