"""`caa certify`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import layers, options, running
from caa_cli.cli.generate import RUN, option
from caa_cli.config.bounds import BOUNDS
from caa_cli.config.certificates import CERTIFICATES
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.runtime.collector import importing

_CERTIFICATE = "Certificate"


@running.guarded
def certify(
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
    samples: Annotated[int, option(help="Noise samples per image.", panel=_CERTIFICATE)] = CertifyPlan.samples,
    selection_samples: Annotated[
        int, option(help="Separate samples, to choose the class.", panel=_CERTIFICATE)
    ] = CertifyPlan.selection_samples,
    alpha: Annotated[
        float, option(help="Error probability allowed per image.", panel=_CERTIFICATE)
    ] = CertifyPlan.alpha,
    bound: Annotated[
        str, option(help=f"Confidence bound: {', '.join(BOUNDS)}.", panel=_CERTIFICATE, choices=BOUNDS)
    ] = CertifyPlan.bound,
    certificate: Annotated[
        str,
        option(
            help=f"Radius that the bounds give: {', '.join(CERTIFICATES)}.",
            panel=_CERTIFICATE,
            choices=CERTIFICATES,
        ),
    ] = CertifyPlan.certificate,
    radius: Annotated[
        float | None,
        option(
            help="Only decide whether each image is certified at this radius: far fewer samples.",
            show_default="the radius itself",
            panel=_CERTIFICATE,
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "float32",
    chunk_size: options.ChunkSize = "auto",
    max_memory: options.MaxMemory = None,
    output: Annotated[Path, option(metavar="FILE.json", help="Where to write the result.", panel=RUN)] = Path(
        "certify.json"
    ),
    tsv: Annotated[
        Path | None,
        option(metavar="FILE.tsv", help="Also write a log in the format of Cohen et al. (2019).", panel=RUN),
    ] = None,
    figure: Annotated[
        Path | None,
        option(metavar="FILE.png", help="Draw certified accuracy by radius (needs matplotlib).", panel=RUN),
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
    """Certify a smoothed classifier: the radius within which each prediction can't change."""
    plan = layers.plan_of(CertifyPlan, locals())
    with importing():
        from caa_cli.run.certify import run_certify

    display, again = running.display_of(plan.shard, quiet, json), running.resume_command(plan.shard)
    raise typer.Exit(run_certify(plan, display, again, running.requirements(require)))
