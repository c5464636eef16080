"""`caa attack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import options
from caa_cli.cli.options import option
from caa_cli.plan import ATTACKS, BOUNDS, FINISHES, SURROGATES, AttackPlan, Shard

_RUN, _COMPUTE = options.RUN, options.COMPUTE
_SEARCH, _PROOF, _CAA = "Attack", "Certificate and proof", "Certification-aware attack (--attack caa)"


@options.guarded
def attack(
    checkpoint: options.Checkpoint,
    sigma: options.Sigma = None,
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    split: options.Split = "test",
    limit: options.Limit = None,
    skip: options.Skip = 0,
    arch: options.Arch = None,
    mean: options.Mean = None,
    std: options.Std = None,
    attack: Annotated[str, option(help=f"One of: {', '.join(ATTACKS)}.", panel=_SEARCH)] = "caa",
    samples: Annotated[int, option(help="Noise samples a step.", panel=_SEARCH)] = 1500,
    iterations: Annotated[int, option(help="The most steps an image.", panel=_SEARCH)] = 100,
    surrogate: Annotated[
        str,
        option(help=f"What has a gradient: {' or '.join(SURROGATES)} (the paper's).", panel=_SEARCH),
    ] = "log-ratio",
    temperature: Annotated[float, option(help="Temperature of --surrogate gumbel.", panel=_SEARCH)] = 0.01,
    alpha: Annotated[float, option(help="Probability of error allowed an image.", panel=_PROOF)] = 0.005,
    bound: Annotated[str, option(help=f"{', '.join(BOUNDS)}.", panel=_PROOF)] = "goodman",
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
        option(help="Fresh samples a proof.", show_default="10 × samples, at least 10000", panel=_PROOF),
    ] = None,
    finish: Annotated[
        str,
        option(
            help=f"Before the proof: {FINISHES[0]} looks for the shortest distance along the ray.",
            panel=_PROOF,
        ),
    ] = "ray",
    overshoot: Annotated[float, option(help="The paper's 1 + δ₁.", panel=_CAA)] = 1.05,
    undershoot: Annotated[float, option(help="The paper's 1 − δ₂.", panel=_CAA)] = 0.95,
    step_min: Annotated[float, option(help="Shortest step.", panel=_CAA)] = 0.1,
    step_max: Annotated[float, option(help="Longest step.", panel=_CAA)] = 0.25,
    patience: Annotated[int, option(help="Steps without gain before an image stops; 0: never.", panel=_CAA)] = 8,
    tolerance: Annotated[float, option(help="The share of the radius that counts as a gain.", panel=_CAA)] = 0.005,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    batch_size: Annotated[str, option(help="Images at a time.", panel=_COMPUTE)] = "auto",
    chunk_size: options.ChunkSize = "auto",
    output: Annotated[Path, option(metavar="FILE.json", help="The result.", panel=_RUN)] = Path("attack.json"),
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
    plan = AttackPlan(
        checkpoint=checkpoint,
        arch=arch,
        sigma=sigma,
        mean=options.numbers(mean, "--mean"),
        std=options.numbers(std, "--std"),
        dataset=dataset,
        data_dir=data_dir,
        split=split,
        limit=limit,
        skip=skip,
        shard=Shard.parse(shard),
        attack=attack,
        samples=samples,
        iterations=iterations,
        alpha=alpha,
        bound=bound,
        seed=seed,
        certify_samples=certify_samples,
        verify_samples=verify_samples,
        finish=finish,
        overshoot=overshoot,
        undershoot=undershoot,
        step_min=step_min,
        step_max=step_max,
        patience=patience,
        tolerance=tolerance,
        surrogate=surrogate,
        temperature=temperature,
        device=device,
        dtype=dtype,
        batch_size=options.automatic(batch_size, "--batch-size"),
        chunk_size=options.automatic(chunk_size, "--chunk-size"),
        output=output,
        save_adversarial=save_adversarial,
        figure=figure,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    from caa_cli.display import Display
    from caa_cli.run.attack import AttackRun

    code = AttackRun(plan, Display(quiet, json), options.repeated(resume=True)).execute()
    raise typer.Exit(code)
