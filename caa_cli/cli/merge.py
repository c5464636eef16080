"""`caa merge`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import options, running
from caa_cli.cli.generate import RUN, option
from caa_cli.config.paths import check_distinct
from caa_cli.errors import UsageError


@running.guarded
def merge(
    shards: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE.json…", help="The results of all shards of one run.")
    ] = None,
    output: Annotated[
        Path | None, option(metavar="FILE.json", help="Where to write the joined result (required).", panel=RUN)
    ] = None,
    save_adversarial: Annotated[
        Path | None,
        option(metavar="FILE.safetensors", help="caa attack: also join the images that the shards saved.", panel=RUN),
    ] = None,
    tsv: Annotated[
        Path | None,
        option(
            metavar="FILE.tsv", help="caa certify: also write a log in the format of Cohen et al. (2019).", panel=RUN
        ),
    ] = None,
    partial: Annotated[
        bool, option("--partial", help="Join what there is, even if shards or images are missing.", panel=RUN)
    ] = False,
    require: options.Require = None,
    config: options.Config = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool, option("--dry-run", help="Only check that the shards fit together; write nothing.", panel=RUN)
    ] = False,
) -> None:
    """Join the results of the shards of one attack or certification into the result of the whole run.

    [bold]caa merge attack.shard-*.json --output attack.json[/] joins those of [bold]--shard auto[/].
    """
    if not shards or output is None:
        raise UsageError(
            "caa merge needs the files of all shards, and --output", "caa merge a.json b.json --output all.json"
        )
    side_files = {"--save-adversarial": save_adversarial, "--tsv": tsv}
    check_distinct([("--config", config)], [("--output", output), *side_files.items()])
    from caa_cli.display import Display
    from caa_cli.run.merge import MergeRun

    code = MergeRun(
        Display(quiet, json),
        tuple(shards),
        output,
        {name: path for name, path in side_files.items() if path is not None},
        partial,
        dry_run,
        running.requirements(require),
        overwrite,
    ).execute()
    raise typer.Exit(code)
