"""How a subcommand runs: its errors, its end by a signal, its display, and the command that goes on with it."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import typer

from caa_cli.errors import INTERRUPTED, CaaError
from caa_cli.launchers import variables
from caa_cli.sharding import Shard
from caa_cli.signals import termination_interrupts

Command = TypeVar("Command", bound=Callable[..., None])


def guarded(command: Command) -> Command:
    """Turns a CaaError into its message and exit code; Ctrl-C, SIGTERM and SIGUSR1 into exit code 130."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            with termination_interrupts():
                command(*arguments, **options)
        except CaaError as error:
            from caa_cli.display import Display

            Display().error(error.problem, error.hint)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            kept = "whatever was finished is kept beside --output (see --resume)"
            # One that can't be resumed has nothing to keep.
            typer.echo(f"interrupted; {kept if 'resume' in options else 'repeat the command'}", err=True)
            raise typer.Exit(INTERRUPTED) from error

    return run  # type: ignore[return-value]


def resume_command(shard: Shard | None = None) -> str:
    """The command line that was typed, with --resume; in front the variables that it was read with.

    They are those with settings of the subcommand (CAA_ATTACK_SAMPLES), and those that say which shard it is.
    """
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    prefix = f"CAA_{(words or [''])[0].upper()}_"
    left_out = {f"{prefix}RESUME", f"{prefix}OVERWRITE"}
    said = {name: os.environ[name] for name in sorted(os.environ) if name.startswith(prefix) and name not in left_out}
    if shard is not None and shard.chosen is not None:
        said |= variables(os.environ)
    in_front = [f"{name}={shlex.quote(value)}" for name, value in said.items()]
    return " ".join([*in_front, shlex.join(["caa", *words, "--resume"])])


def requirements(texts: Sequence[str] | None) -> tuple[Any, ...]:
    """The Requirements of --require. Raises UsageError for what is none."""
    from caa_cli.results.requirements import Requirement

    return tuple(Requirement.parse(text) for text in texts or ())


def display_of(shard: Shard, quiet: bool, json: bool) -> Any:
    """The Display; processes that were launched together share a terminal."""
    from caa_cli.display import Display

    return Display(quiet, json, str(shard) if shard.launched else "")
