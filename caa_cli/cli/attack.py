"""`caa attack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import options
from caa_cli.cli.options import option
from caa_cli.names import ATTACKS, BOUNDS, FINISHES, SURROGATES
from caa_cli.plan import AttackPlan

_RUN, _COMPUTE = options.RUN, options.COMPUTE
_SEARCH, _PROOF, _CAA = "Attack", "Certificate and proof", "Certification-aware attack (--attack caa)"


@options.guarded
def attack(
    checkpoint: options.Checkpoint,
    sigma: options.Sigma = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    split: options.Split = "test",
    image_size: options.ImageSize = None,
    limit: options.Limit = None,
    skip: options.Skip = 0,
    every: options.Every = 1,
    indices: options.Indices = None,
    arch: options.Arch = None,
    normalisation: options.Normalisation = None,
    mean: options.Mean = None,
    std: options.Std = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    attack: Annotated[str, option(help=f"One of: {', '.join(ATTACKS)}.", panel=_SEARCH)] = AttackPlan.attack,
    samples: Annotated[int, option(help="Noise samples per step.", panel=_SEARCH)] = AttackPlan.samples,
    iterations: Annotated[int, option(help="Most steps per image.", panel=_SEARCH)] = AttackPlan.iterations,
    surrogate: Annotated[
        str,
        option(help=f"Whose gradient is followed: {' or '.join(SURROGATES)} (the paper's).", panel=_SEARCH),
    ] = AttackPlan.surrogate,
    temperature: Annotated[
        float, option(help="Temperature of --surrogate gumbel.", panel=_SEARCH)
    ] = AttackPlan.temperature,
    alpha: Annotated[float, option(help="Error probability per image.", panel=_PROOF)] = AttackPlan.alpha,
    bound: Annotated[str, option(help=f"{', '.join(BOUNDS)}.", panel=_PROOF)] = AttackPlan.bound,
    certify_samples: Annotated[
        int | None,
        option(
            help="Samples of the clean image's certificate.",
            show_default="as --verify-samples",
            panel=_PROOF,
        ),
    ] = None,
    verify_samples: Annotated[
        int | None,
        option(help="Fresh samples per proof.", show_default="10 × samples, at least 10000", panel=_PROOF),
    ] = None,
    finish: Annotated[
        str,
        option(
            help=f"{FINISHES[0]}: seek the shortest provable distance along the ray; {FINISHES[1]}: don't.",
            panel=_PROOF,
        ),
    ] = AttackPlan.finish,
    overshoot: Annotated[float, option(help="The paper's 1 + δ₁.", panel=_CAA)] = AttackPlan.overshoot,
    undershoot: Annotated[float, option(help="The paper's 1 − δ₂.", panel=_CAA)] = AttackPlan.undershoot,
    step_min: Annotated[float, option(help="Shortest step.", panel=_CAA)] = AttackPlan.step_min,
    step_max: Annotated[float, option(help="Longest step.", panel=_CAA)] = AttackPlan.step_max,
    patience: Annotated[
        int, option(help="Steps without gain before an image stops; 0: never.", panel=_CAA)
    ] = AttackPlan.patience,
    tolerance: Annotated[
        float, option(help="The share of the radius that counts as a gain.", panel=_CAA)
    ] = AttackPlan.tolerance,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: Annotated[str, option(help="Images at a time.", panel=_COMPUTE)] = "auto",
    chunk_size: options.ChunkSize = "auto",
    output: Annotated[Path, option(metavar="FILE.json", help="The result.", panel=_RUN)] = AttackPlan.output,
    save_adversarial: Annotated[
        Path | None,
        option(metavar="FILE.safetensors", help="Keep the adversarial images.", panel=_RUN),
    ] = None,
    figure: Annotated[
        Path | None,
        option(metavar="FILE.png", help="Draw a few originals and their attacks (extra: plot).", panel=_RUN),
    ] = None,
    seed: options.Seed = 0,
    shard: options.ShardOption = "0/1",
    config: options.Config = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
) -> None:
    """Attack a smoothed classifier: find the nearest images that it gets wrong, and prove each one.

    [bold]caa attack --checkpoint demo[/] runs on what comes with caa.
    """
    plan = options.plan_of(AttackPlan, locals())
    from caa_cli.display import Display
    from caa_cli.run.attack import AttackRun

    code = AttackRun(Display(quiet, json), options.resume_command(), plan).execute()
    raise typer.Exit(code)
