"""The `caa` command. Nothing heavy is imported here: --help and --version answer at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from caa_cli import __version__
from caa_cli.cli.attack import attack
from caa_cli.cli.bash import whole_words
from caa_cli.cli.certify import certify
from caa_cli.cli.check import check
from caa_cli.cli.compare import compare
from caa_cli.cli.generate import with_strict_numbers
from caa_cli.cli.inspect import inspect
from caa_cli.cli.merge import merge
from caa_cli.cli.running import Command, Group, show_error
from caa_cli.cli.status import status
from caa_cli.cli.train import train
from caa_cli.errors import CaaError
from caa_cli.runtime import collector, streams

app = typer.Typer(
    name="caa",
    cls=Group,
    help="Certification-aware attacks on classifiers defended by randomised smoothing.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for subcommand in (attack, certify, compare, merge, check, status, train, inspect):
    app.command(cls=Command)(with_strict_numbers(subcommand))


def _version(asked: bool) -> None:
    if asked:
        print(f"caa {__version__}", flush=True)
        raise typer.Exit()


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Certification-aware attacks on classifiers defended by randomised smoothing."""


def main() -> None:
    """Run `caa` on the words that were typed."""
    streams.prepare()
    collector.rest_at_exit()
    try:
        with whole_words():
            app(prog_name="caa")  # also as `python -m caa_cli`
    except CaaError as error:  # of --help and --version; a subcommand shows its errors itself
        show_error(error)
        sys.exit(error.exit_code)
