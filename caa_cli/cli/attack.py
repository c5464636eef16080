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
from caa_cli.config.choices import DTYPES, GRADIENTS, SURROGATE_MODEL
from caa_cli.config.targets import FORMS, TARGET_RULES
from caa_cli.runtime.collector import importing

_RUN, _COMPUTE = generate.RUN, generate.COMPUTE
_SEARCH = generate.SEARCH
_VERIFICATION = (
    *("alpha", "bound", "certificate", "selection_samples", "certify_samples", "verify_samples"),
    *("verification", "finish"),
)


@running.guarded
@generate.with_options_of(options.run)
@generate.with_options_of(options.model_and_images, before="attack")
@generate.with_options(generate.attack_settings(), before="device")
@generate.with_options(
    generate.plan_settings(AttackPlan, "Certificate and verification", _VERIFICATION), before="device"
)
def attack(
    context: typer.Context,
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
    device: options.Device = AttackPlan.device,
    dtype: options.Dtype = AttackPlan.dtype,
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
    **given: Any,
) -> None:
    """Attack a smoothed classifier: find the nearest images that it misclassifies, each verified on fresh noise.

    [bold]caa attack --checkpoint demo[/] runs on a model and images that come with caa.
    """
    given = locals() | given
    layers.check_trust(context, "attack", attack)
    plan = layers.plan_of(AttackPlan, layers.with_preset(context, given, attack))
    with importing():
        from caa_cli.run.attack import run_attack

    raise typer.Exit(run_attack(plan, *running.surroundings(plan.shard, given)))
