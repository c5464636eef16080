"""`caa attack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import attack_options as own
from caa_cli.cli import options, running
from caa_cli.cli.options import option
from caa_cli.names import ATTACKS, BOUNDS, FINISHES, GRADIENTS, SURROGATE_MODEL
from caa_cli.plan import AttackPlan

_RUN, _COMPUTE = options.RUN, options.COMPUTE
_SEARCH, _PROOF = "Attack", "Certificate and proof"


@running.guarded
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
    overshoot: own.Overshoot = None,
    undershoot: own.Undershoot = None,
    step_min: own.StepMin = None,
    step_max: own.StepMax = None,
    patience: own.Patience = None,
    tolerance: own.Tolerance = None,
    sample_schedule: own.SampleSchedule = None,
    refine: own.Refine = None,
    rivals: own.Rivals = None,
    surrogate: own.Surrogate = None,
    temperature: own.Temperature = None,
    newton_rivals: own.NewtonRivals = None,
    newton_steps: own.NewtonSteps = None,
    newton_memory: own.NewtonMemory = None,
    pgd_epsilon: own.PgdEpsilon = None,
    cw_constant: own.CwConstant = None,
    cw_initial_constant: own.CwInitialConstant = None,
    cw_binary_search_steps: own.CwBinarySearchSteps = None,
    cw_learning_rate: own.CwLearningRate = None,
    cw_confidence: own.CwConfidence = None,
    deepfool_overshoot: own.DeepfoolOvershoot = None,
    deepfool_candidates: own.DeepfoolCandidates = None,
    autoattack_radius: own.AutoattackRadius = None,
    autoattack_minimise: own.AutoattackMinimise = None,
    autoattack_searches: own.AutoattackSearches = None,
    autoattack_rho: own.AutoattackRho = None,
    ddn_initial_norm: own.DdnInitialNorm = None,
    ddn_gamma: own.DdnGamma = None,
    fmn_alpha_init: own.FmnAlphaInit = None,
    fmn_alpha_final: own.FmnAlphaFinal = None,
    fmn_gamma_init: own.FmnGammaInit = None,
    fmn_gamma_final: own.FmnGammaFinal = None,
    alma_init_lr_distance: own.AlmaInitLrDistance = None,
    alma_lr_reduction: own.AlmaLrReduction = None,
    alma_alpha: own.AlmaAlpha = None,
    alma_mu_init: own.AlmaMuInit = None,
    alma_rho_init: own.AlmaRhoInit = None,
    alma_check_steps: own.AlmaCheckSteps = None,
    alma_tau: own.AlmaTau = None,
    alma_gamma: own.AlmaGamma = None,
    alma_logit_tolerance: own.AlmaLogitTolerance = None,
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
) -> None:
    """Attack a smoothed classifier: find the nearest images that it gets wrong, and prove each one.

    [bold]caa attack --checkpoint demo[/] runs on what comes with caa.
    """
    plan = options.plan_of(AttackPlan, locals())
    from caa_cli.run.attack import AttackRun

    requirements = running.requirements(require)
    display, again = running.display_of(plan.shard, quiet, json), running.resume_command(plan.shard)
    raise typer.Exit(AttackRun(display, again, plan, requirements=requirements).execute())
