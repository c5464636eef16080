"""`caa attack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_cli.cli import generate, options, running
from caa_cli.cli.generate import option
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.bounds import BOUNDS
from caa_cli.config.choices import FINISHES, GRADIENTS, SURROGATE_MODEL
from caa_cli.config.plan import AttackPlan

_RUN, _COMPUTE = generate.RUN, generate.COMPUTE
_SEARCH, _PROOF = "Attack", "Certificate and proof"


@running.guarded
@generate.with_options(generate.attack_settings(), before="device")
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
    samples: Annotated[
        int, option(help="Noise samples of a step; caa and caa-newton take a part of them.", panel=_SEARCH)
    ] = AttackPlan.samples,
    iterations: Annotated[
        int, option(help="Most steps per image (cw, autoattack, caa --rivals: a run).", panel=_SEARCH)
    ] = AttackPlan.iterations,
    attack_sigma: Annotated[
        float | None, option(help="What the search takes σ to be.", show_default="the true σ", panel=_SEARCH)
    ] = None,
    gradient: Annotated[
        str,
        option(
            metavar="|".join(GRADIENTS).replace(SURROGATE_MODEL, f"{SURROGATE_MODEL}=FILE"),
            help="What the search sees: the model, another one's gradients, or votes alone.",
            panel=_SEARCH,
        ),
    ] = AttackPlan.gradient,
    alpha: Annotated[float, option(help="Error probability per image.", panel=_PROOF)] = AttackPlan.alpha,
    bound: Annotated[str, option(help=f"{', '.join(BOUNDS)}.", panel=_PROOF)] = AttackPlan.bound,
    selection_samples: Annotated[
        int | None,
        option(
            help="Samples that choose what is proved: the clean class, the point on the ray.",
            show_default="as --samples",
            panel=_PROOF,
        ),
    ] = None,
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
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: Annotated[str, option(help="Images at a time.", panel=_COMPUTE)] = "auto",
    chunk_size: options.ChunkSize = "auto",
    max_memory: options.MaxMemory = None,
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
    require: options.Require = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    **settings: Any,
) -> None:
    """Attack a smoothed classifier: find the nearest images that it gets wrong, and prove each one.

    [bold]caa attack --checkpoint demo[/] runs on what comes with caa.
    """
    given = locals()
    plan = options.plan_of(AttackPlan, given | given.pop("settings"))
    from caa_cli.run.attack import run_attack

    display, again = running.display_of(plan.shard, quiet, json), running.resume_command(plan.shard)
    raise typer.Exit(run_attack(plan, display, again, running.requirements(require)))
