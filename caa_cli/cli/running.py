"""How a subcommand runs: its errors, its end by a signal, its display, and the command that goes on with it."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable
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
            typer.echo("interrupted; whatever was finished is kept beside --output (see --resume)", err=True)
            raise typer.Exit(INTERRUPTED) from error

    return run  # type: ignore[return-value]


def resume_command(shard: Shard | None = None) -> str:
    """The command line that was typed, with --resume; for one of several shards, which one in front."""
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    again = shlex.join(["caa", *words, "--resume"])
    if shard is None or shard.chosen is None:
        return again
    said = [f"{name}={shlex.quote(value)}" for name, value in variables(os.environ).items()]
    return " ".join([*said, again])


def display_of(shard: Shard, quiet: bool, json: bool) -> Any:
    """The Display; processes that were launched together share a terminal."""
    from caa_cli.display import Display

    return Display(quiet, json, str(shard) if shard.launched else "")
