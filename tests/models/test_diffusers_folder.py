"""Folders of the diffusers library as denoisers, against the library's own U-Net and schedulers."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import quantised
from published import CASES
from safetensors.torch import load_file, save_file
from support import CHEAP, assert_clean_error, caa, read_strict

from caa_cli.config.schema import SchemaError
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.denoisers.diffusers_folder import Scheduler
from caa_cli.models.denoisers.open import open_denoiser
from caa_cli.smoothing.recompute import graph_bytes, recompute_activations

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def folder(path: Path, scheduler: str = "DDPMScheduler", unet: str = "UNet2DModel", **settings: Any) -> Path:
    """A pipeline's folder with random weights. settings: of the U-Net, or of the scheduler if it has such."""
    diffusers = pytest.importorskip("diffusers")
    common: dict[str, Any] = {"sample_size": 16, "layers_per_block": 1, "block_out_channels": (32, 32)}
    common |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
    common |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "dropout": 0.5}
    kind = getattr(diffusers, scheduler)
    own = {name: settings.pop(name) for name in list(settings) if name in kind().config}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(**{**common, **settings})
    network.save_pretrained(path / "unet")
    kind(**own).save_pretrained(path / "scheduler")
    return path


def edit(path: Path, **values: Any) -> None:
    document = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not ...}))


def parts(path: Path) -> tuple[Any, Any]:
    diffusers = pytest.importorskip("diffusers")
    return (
        diffusers.UNet2DModel.from_pretrained(path / "unet").eval(),
        diffusers.DDPMScheduler.from_pretrained(path / "scheduler"),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "prediction_type": "v_prediction",
        },
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "clip_sample": False},
        {"num_train_timesteps": 200, "beta_end": 0.1, "rescale_betas_zero_snr": True, "clip_sample_range": 0.7},
        {"trained_betas": [0.01 * number for number in range(1, 51)]},
        {"out_channels": 6, "variance_type": "learned_range"},
    ],
)
def test_step_is_the_schedulers(tmp_path, settings):
    found = open_denoiser(folder(tmp_path, **settings))
    assert (found.family, found.channels, found.size, found.multiple) == ("diffusers", 3, 16, 2)
    network, scheduler = parts(tmp_path)
    for sigma in (0.12, 0.5):
        step = found.build(sigma)
        left = scheduler.alphas_cumprod
        number = int(((1 - left) / left).sqrt().ge(2 * sigma).int().argmax())
        assert step.timestep == number
        assert found.expected_sigma(sigma) == pytest.approx(float(((1 - left) / left).sqrt()[number]) / 2, rel=1e-4)
        with torch.no_grad():
            z = left[number].sqrt() * (2 * X - 1)
            clean = scheduler.step(network(z, number).sample, number, z).pred_original_sample
            denoised = step(X)
        assert float((denoised - (clean + 1) / 2).norm() / denoised.norm()) < 1e-5


def test_files_of_2022(tmp_path):
    """They lie in one folder, with older names for attention, and pickled."""
    folder(tmp_path / "new")
    weights = load_file(tmp_path / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    pattern = re.compile(r"(?<=\.)(to_q|to_k|to_v|to_out\.0)(?=\.)")
    old = {pattern.sub(lambda found: names[found[1]], name): value for name, value in weights.items()}
    assert old.keys() != weights.keys()
    old_folder = tmp_path / "old"
    old_folder.mkdir()
    torch.save(old, old_folder / "diffusion_pytorch_model.bin")
    shutil.copy(tmp_path / "new" / "unet" / "config.json", old_folder)
    shutil.copy(tmp_path / "new" / "scheduler" / "scheduler_config.json", old_folder)
    with torch.no_grad():
        one, other = (open_denoiser(tmp_path / name).build(0.25)(X) for name in ("old", "new"))
    assert torch.equal(one, other)


def test_gradient_recomputed_or_not(tmp_path):
    step = open_denoiser(folder(tmp_path)).build(0.5).double().requires_grad_(False)
    x = (0.3 + 0.4 * X[:1]).double().requires_grad_()
    weights = torch.randn(x.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * step(x)).sum(), x)
    before = graph_bytes(step, x)
    assert recompute_activations(step, x.detach())
    assert graph_bytes(step, x) < before / 2
    (again,) = torch.autograd.grad((weights * step(x)).sum(), x)
    assert (again - gradient).norm() <= 1e-10 * gradient.norm()
    along, length = torch.randn(x.shape, dtype=torch.float64), 1e-6
    with torch.no_grad():
        there, back = ((weights * step(x + sign * length * along)).sum() for sign in (1, -1))
    assert float((there - back) / (2 * length)) == pytest.approx(float((gradient * along).sum()), rel=1e-4)


def test_half_a_folder(tmp_path):
    whole = folder(tmp_path / "whole")
    with pytest.raises(UsageError, match=r"holds no scheduler_config\.json") as caught:
        open_denoiser(whole / "unet")
    assert "DDPMPipeline.save_pretrained" in str(caught.value.hint)
    with pytest.raises(UsageError, match="is a folder without weights"):
        open_denoiser(whole / "scheduler")
    with pytest.raises(UsageError, match=r"holds no config\.json of a UNet2DModel"):
        open_denoiser(whole / "unet" / "diffusion_pytorch_model.safetensors")
    (whole / "unet" / "config.json").unlink()
    with pytest.raises(UsageError, match=r"holds no config\.json of a UNet2DModel"):
        open_denoiser(whole)
    (whole / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (whole / "model_index.json").write_text("{}")  # as DDPMPipeline writes it
    assert_clean_error(caa("inspect", whole), 2, "is a folder without weights", "holds config.json and the weights")
    assert_clean_error(caa("certify", "--checkpoint", whole), 2, "without a config.json", "goes to --denoiser")


@pytest.mark.parametrize(
    ("file", "values", "problem"),
    [
        ("unet/config.json", {"num_class_embeds": 10}, r"is conditional.*\(it has to be told the class\)"),
        ("unet/config.json", {"class_embed_type": "timestep"}, r"\(it has to be told the class\)"),
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, r"\(it is a UNet2DConditionModel\)"),
        ("unet/config.json", {"in_channels": 6}, "takes 6 channels and returns 3"),
        ("unet/config.json", {"in_channels": "three"}, r"can't be used \(in_channels"),
        ("unet/config.json", {"block_out_channels": ...}, r"can't be used \(block_out_channels is missing"),
        ("unet/config.json", {"block_out_channels": [32, 64]}, "don't make a UNet2DModel"),
        ("unet/config.json", {"down_block_types": ["Nothing", "Nothing"]}, "don't make a UNet2DModel"),
        (
            "scheduler/scheduler_config.json",
            {"beta_schedule": "sigmoid"},
            "noise that caa doesn't know .beta_schedule",
        ),
        ("scheduler/scheduler_config.json", {"beta_schedule": ...}, "beta_schedule is missing"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type"),
        ("scheduler/scheduler_config.json", {"beta_start": 1.0}, "its betas leave nothing of an image"),
        ("scheduler/scheduler_config.json", {"trained_betas": []}, "its betas leave nothing of an image"),
    ],
)
def test_models_that_are_refused(tmp_path, file, values, problem):
    edit(folder(tmp_path) / file, **values)
    with pytest.raises(CaaError, match=problem):
        open_denoiser(tmp_path)


def test_a_folder_of_weights_that_were_quantised_to_integers_is_refused(tmp_path):
    path = folder(tmp_path / "d")
    (file,) = path.glob("unet/*.safetensors")
    save_file(quantised(load_file(file)), file)
    with pytest.raises(CaaError, match="is of type int8"):
        open_denoiser(path)


def test_a_schedule_needs_no_library():
    assert len(Scheduler.of({"beta_schedule": "linear"}).diffusion.alpha_bars) == 1000
    with pytest.raises(SchemaError, match="num_train_timesteps"):
        Scheduler.of({"beta_schedule": "linear", "num_train_timesteps": 0})


def test_without_the_library(tmp_path, monkeypatch):
    config = {"_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "block_out_channels": [32]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "linear"}))
    save_file({"conv_in.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(CaaError, match="needs the diffusers library") as caught:
        open_denoiser(tmp_path)
    assert caught.value.hint == "pip install 'caa-cli[diffusion]'"


def test_inspect_offers_no_run_that_the_schedule_or_the_size_forbids(tmp_path):
    path = folder(tmp_path / "model", num_train_timesteps=20, beta_end=0.002)
    fits = caa("inspect", path, "--sigma", "0.05")
    assert (fits.exit_code, "--sigma 0.05 " in fits.stdout) == (0, True)
    CASES["Cohen, CIFAR-10, ResNet-20"].write(tmp_path / "classifier.pth")
    for words, problem in [
        ([path, "--sigma", "0.25"], "last step has noise of σ = 0.072, less than σ = 0.25"),
        ([path, "--dataset", "cifar10"], "takes images of 16×16 pixels, cifar10 has 3×32×32"),
        ([tmp_path / "classifier.pth", "--denoiser", path], "takes images of 16×16 pixels, cifar10 has 3×32×32"),
    ]:
        result = caa("inspect", *words)
        assert (result.exit_code, problem in result.stdout) == (1, True), result.output
        assert "caa attack" not in result.stdout


def test_attack_on_a_classifier_behind_a_folder(tmp_path):
    small = {"block_out_channels": (8, 8), "norm_num_groups": 8}
    path = folder(tmp_path / "model", in_channels=1, out_channels=1, sample_size=[28, 28], **small)
    output = tmp_path / "out.json"
    cheap = ["--limit", "1", "--iterations", "1", "--samples", "16", "--certify-samples", "32"]
    cheap = [*CHEAP, *cheap, "--verify-samples", "16", "--denoiser", path]
    result = caa("attack", *cheap, "--output", output)
    assert result.exit_code == 0, result.output
    assert "for σ = 0.5024; the noise, and so the certificates, have σ = 0.5" in result.output
    denoiser = read_strict(output)["checkpoint"]["denoiser"]
    assert denoiser["family"] == "diffusers"
    assert denoiser["expected_sigma"] == pytest.approx(0.5023919, abs=1e-6)
    result = caa("attack", *cheap, "--sigma", "90", "--output", tmp_path / "b.json")
    assert result.exit_code == 2
    assert "last step has noise of σ = 78.703, less than σ = 90" in result.output
