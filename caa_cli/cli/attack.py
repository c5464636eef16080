"""`caa attack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_cli.cli import completion, generate, layers, options, running
from caa_cli.cli.generate import option
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attack_settings import samples_by_default
from caa_cli.config.attacks import ATTACKS, SAMPLES
from caa_cli.config.bounds import BOUNDS
from caa_cli.config.certificates import CERTIFICATES
from caa_cli.config.choices import DTYPES, EXACT, FINISHES, GRADIENTS, INTERVALS, SURROGATE_MODEL, VERIFICATIONS
from caa_cli.config.targets import FORMS, TARGET_RULES
from caa_cli.runtime.collector import importing

_RUN, _COMPUTE = generate.RUN, generate.COMPUTE
_SEARCH, _VERIFICATION = generate.SEARCH, "Certificate and verification"


@running.guarded
@generate.with_options(generate.attack_settings(), before="device")
def attack(
    context: typer.Context,
    checkpoint: options.Checkpoint = None,
    ensemble: options.Ensemble = None,
    denoiser: options.Denoiser = None,
    denoiser_arch: options.DenoiserArch = None,
    classifier_size: options.ClassifierSize = None,
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
    attack: Annotated[
        str,
        option(
            help=f"Which attack: {', '.join(ATTACKS)}; or one of yours: package.module:name, file.py:name.",
            panel=_SEARCH,
            choices=ATTACKS,
        ),
    ] = AttackPlan.attack,
    trust_attack: options.TrustAttack = False,
    preset: options.PresetName = None,
    samples: Annotated[
        int | None,
        option(
            help="Noise samples per step; caa and caa-newton use fewer where that is enough.",
            show_default=f"{SAMPLES}; caa-newton by gradients: {samples_by_default('caa-newton')}",
            panel=_SEARCH,
        ),
    ] = None,
    iterations: Annotated[
        int,
        option(
            help="Most steps per image; of each restart (cw, autoattack, apgd-min) or rival class (caa --rivals).",
            panel=_SEARCH,
        ),
    ] = AttackPlan.iterations,
    attack_sigma: Annotated[
        float | None,
        option(
            help="Noise level that the search assumes; certificate and verification use the true σ.",
            show_default="the true σ",
            panel=_SEARCH,
        ),
    ] = None,
    gradient: Annotated[
        str,
        option(
            metavar="|".join(GRADIENTS).replace(SURROGATE_MODEL, f"{SURROGATE_MODEL}=FILE"),
            help="Gradients for the search: the model's own, those of another checkpoint, or none (votes alone).",
            panel=_SEARCH,
            choices=completion.gradients,
        ),
    ] = AttackPlan.gradient,
    target: Annotated[
        str | None,
        option(
            metavar=FORMS,
            help="Reach one class: a number or name; the second or least likely one, or a random one, of each image; "
            "or as a file lists them.",
            show_default="any but the label",
            panel=_SEARCH,
            choices=TARGET_RULES,
        ),
    ] = None,
    alpha: Annotated[
        float,
        option(
            help="Error probability allowed per image, for the certificate and for the verification.",
            panel=_VERIFICATION,
        ),
    ] = AttackPlan.alpha,
    bound: Annotated[
        str, option(help=f"Confidence bound: {', '.join(BOUNDS)}.", panel=_VERIFICATION, choices=BOUNDS)
    ] = AttackPlan.bound,
    certificate: Annotated[
        str,
        option(
            help=f"Radius that the bounds give, of the clean image and for caa's steps: {', '.join(CERTIFICATES)}.",
            panel=_VERIFICATION,
            choices=CERTIFICATES,
        ),
    ] = AttackPlan.certificate,
    selection_samples: Annotated[
        int | None,
        option(
            help="Samples to choose the clean class, and of each point of the line search.",
            show_default=f"as --samples, or {SAMPLES}",
            panel=_VERIFICATION,
        ),
    ] = None,
    certify_samples: Annotated[
        int | None,
        option(
            help="Samples for the certified radius of the clean image.",
            show_default="as --verify-samples",
            panel=_VERIFICATION,
        ),
    ] = None,
    verify_samples: Annotated[
        int | None,
        option(
            help="Fresh samples, at most, of each try to verify an adversarial image.",
            show_default=f"10 × --samples, at least 10000, or {10 * SAMPLES}",
            panel=_VERIFICATION,
        ),
    ] = None,
    verification: Annotated[
        str,
        option(
            help=f"{EXACT}: a sequential test of the two classes, which ends as soon as it is sure; {INTERVALS}: "
            "confidence intervals by --bound, as in the paper.",
            panel=_VERIFICATION,
            choices=VERIFICATIONS,
        ),
    ] = AttackPlan.verification,
    finish: Annotated[
        str,
        option(
            help=f"{FINISHES[0]}: after the search, shorten along the line to the clean image; {FINISHES[1]}: don't.",
            panel=_VERIFICATION,
            choices=FINISHES,
        ),
    ] = AttackPlan.finish,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    search_dtype: Annotated[
        str | None,
        option(
            help="Precision of the search alone, with a second copy of the weights; certificate, line search and "
            "verification keep --dtype.",
            show_default="as --dtype",
            panel=_COMPUTE,
            choices=DTYPES,
        ),
    ] = None,
    batch_size: Annotated[
        str, option(help="Images to attack at the same time.", panel=_COMPUTE, choices=("auto",))
    ] = "auto",
    chunk_size: options.ChunkSize = "auto",
    max_memory: options.MaxMemory = None,
    output: Annotated[
        Path, option(metavar="FILE.json", help="Where to write the result.", panel=_RUN)
    ] = AttackPlan.output,
    save_adversarial: Annotated[
        Path | None,
        option(metavar="FILE.safetensors", help="Also save the adversarial images.", panel=_RUN),
    ] = None,
    name: Annotated[
        str | None,
        option(metavar="NAME", help="What tables and pictures of caa compare call this attack.", panel=_RUN),
    ] = None,
    figure: Annotated[
        Path | None,
        option(metavar="FILE.png", help="Draw a few images before and after (needs matplotlib).", panel=_RUN),
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
    """Attack a smoothed classifier: find the nearest images that it misclassifies, each verified on fresh noise.

    [bold]caa attack --checkpoint demo[/] runs on a model and images that come with caa.
    """
    given = locals()
    layers.check_trust(context, "attack", attack)
    given = layers.with_preset(context, given | given.pop("settings"), attack)
    plan = layers.plan_of(AttackPlan, given)
    with importing():
        from caa_cli.run.attack import run_attack

    display, again = running.display_of(plan.shard, quiet, json), running.resume_command(plan.shard)
    raise typer.Exit(run_attack(plan, display, again, running.requirements(require)))
