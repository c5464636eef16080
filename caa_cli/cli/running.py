"""How a subcommand runs: its errors, its end by a signal, its display, and the command that goes on with it."""

from __future__ import annotations

import errno
import functools
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from caa_cli.cli.environment import check_variables, name_variables, origins
from caa_cli.cli.refusals import TYPED, check_empty, check_files, refusal
from caa_cli.cli.values import shortened
from caa_cli.errors import INTERRUPTED, WRONG_USAGE, CaaError, MissingSettingsError, UsageError
from caa_cli.runtime import streams
from caa_cli.runtime.launchers import variables
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.signals import termination_interrupts
from caa_cli.runtime.terminal import has_colours, is_live

# Click's UsageError, which typer does not export: an option that is not known, or misses its value.
_Refused: Any = typer.BadParameter.__base__
Function = TypeVar("Function", bound=Callable[..., None])


class Helpful:
    """A command's help in caa's style: no type behind a switch, which takes no value, nor behind an argument."""

    def format_help(self, context: typer.Context, formatter: Any) -> None:
        with help_style():
            super().format_help(context, formatter)  # type: ignore[misc]

    def get_params(self, context: typer.Context) -> list[Any]:
        parameters: list[Any] = super().get_params(context)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
            elif parameter.param_type_name == "argument":
                # Typer 0.29 and later put brackets and dots around the words, and a type behind them.
                parameter.get_usage_pieces = lambda _, words=parameter.metavar: [words]
                parameter.display_type_rich = lambda ctx: None
        return parameters


class Command(Helpful, TyperCommand):  # type: ignore[misc]
    """A subcommand: it reads its options' environment variables, and shows errors as a message and an exit code."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        name_variables(self)

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        context.meta[TYPED] = shlex.join([*context.command_path.split(), *args])
        with refusals_shown(context):
            if not context.resilient_parsing:
                check_empty(args)
                check_files(args, self.params)
            return super().parse_args(context, args)

    def invoke(self, context: typer.Context) -> Any:  # type: ignore[override]
        with errors_shown(context):
            check_variables(context)
            check_folder()
            given = context.params
            if not given.get("quiet") or given.get("json") or given.get("format", "table") != "table":
                streams.check_stdout()
            return super().invoke(context)


class Group(Helpful, TyperGroup):  # type: ignore[misc]
    """`caa` itself: a subcommand that is not known is shown as any other error."""

    def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args:  # the help is shown
            return super().parse_args(context, args)
        with refusals_shown(context):
            return super().parse_args(context, args)

    def resolve_command(self, context: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        with refusals_shown(context):
            return super().resolve_command(context, args)


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
            raise refusal(context, error) from error


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
    """A CaaError that is raised meanwhile, or a want of memory, ends the command, with a message and an exit code."""
    try:
        with _memory_heeded("resume" in context.params), _exit_refused():
            yield
    except CaaError as error:
        if isinstance(error, MissingSettingsError):
            error.hint = " ".join([context.meta[TYPED], *error.flags])
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


@contextmanager
def _memory_heeded(resumes: bool) -> Iterator[None]:
    """A context that turns a want of memory into a CaaError. resumes: whether the command has --resume."""
    try:
        yield
    except (MemoryError, ImportError) as error:
        # What the loader of shared libraries says, such as those of PyTorch.
        if isinstance(error, ImportError) and "failed to map segment" not in str(error):
            raise
        again = "; what is finished is kept, for --resume" if resumes else ""
        raise CaaError("there is not enough memory", f"free some, or raise its limit (ulimit -v){again}") from error


@contextmanager
def _exit_refused() -> Iterator[None]:
    """A context that turns a sys.exit() of the user's code, such as a network's, into a CaaError: it would end caa
    without a word, and perhaps with exit code 0."""
    try:
        yield
    except SystemExit as error:
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        code, line = [place for place in frames if place[0].co_qualname != "Quitter.__call__"][-1]  # that of exit()
        if code.co_name == "on_broken_pipe":  # Rich's, where nobody reads its output
            raise
        raise CaaError(
            f"{code.co_qualname} ended caa ({code.co_filename}, line {line})", "let it raise an exception instead"
        ) from error


def show_error(error: CaaError) -> None:
    from caa_cli.display import Display

    Display().error(error.problem, error.hint)


def guarded(command: Function) -> Function:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into exit code 130."""

    # From Python 3.14 on `wraps` alone would leave out annotations that `generate` has set.
    @functools.wraps(command, assigned=(*functools.WRAPPER_ASSIGNMENTS, "__annotations__"))
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
