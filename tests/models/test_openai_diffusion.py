"""U-Nets of improved-diffusion and guided-diffusion: from the tensors' names, against independent code."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from networks import quantised
from published_diffusion import Published
from safetensors.torch import save_file
from torch import Tensor

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.checkpoint import Weights
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.open import check_images, open_denoiser
from caa_cli.models.denoisers.openai_diffusion import recognise
from caa_cli.models.denoisers.unet import timestep_embedding
from caa_cli.smoothing.recompute import graph_bytes, recompute_activations

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
# Networks, and the flags that have to be told: what the published ones of their kind don't have.
NETWORKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "improved-diffusion": ({"multipliers": (1, 2), "blocks": 1, "attention": (2,)}, {}),
    "improved-diffusion, LSUN": (
        {"multipliers": (1, 1, 2), "blocks": 2, "attention": (4,), "modulated": False, "heads": 1},
        {},
    ),
    "guided-diffusion": (
        {"multipliers": (1, 2), "blocks": 1, "attention": (1, 2), "width": 64, "head_channels": 64}
        | {"resampling_blocks": True},
        {},
    ),
    "guided-diffusion, new order": (
        {"multipliers": (1, 1), "blocks": 2, "attention": (1,), "head_channels": 16, "new_order": True}
        | {"resampling_blocks": True},
        {"num_head_channels": 16, "use_new_attention_order": True},
    ),
    "no variance, one size": (
        {"multipliers": (1,), "blocks": 2, "outputs": 3, "heads": 2},
        {"num_heads": 2, "diffusion_steps": 200, "noise_schedule": "linear", "rescale_timesteps": False},
    ),
    "predicts the image": ({"multipliers": (1,), "blocks": 1, "outputs": 3}, {"predict_xstart": True}),
}


def published(settings: Mapping[str, Any], x: Tensor = X) -> Published:
    network = Published(**settings)
    network(x[:1, : network.channels], 0.0)
    return network


def recognised(tensors: Mapping[str, Tensor], flags: Mapping[str, Any] | None = None) -> Denoiser:
    weights = Weights(format="", tensors=dict(tensors), path=Path("x.pt"), sha256="", size=0, card=None)
    documents = {} if flags is None else {"flags.json": flags}
    found = recognise(DenoiserFile(path=Path("x.pt"), sha256="", weights=weights, documents=documents))
    assert found is not None
    return found


def small() -> Published:
    return published({"multipliers": (1, 2), "blocks": 1, "attention": (2,)})


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_published_one(name):
    settings, flags = NETWORKS[name]
    network = published(settings)
    step = recognised(network.weights, flags).build(0.25).double()
    x = X.double()
    for timestep in (step.timestep, 3.75):
        expected = network(x, timestep)
        assert torch.allclose(step.network(x, timestep), expected, rtol=0, atol=1e-9 * expected.abs().max())
    assert not torch.allclose(network(x, 9.0), expected, rtol=1e-3)


def test_the_whole_denoiser_is_the_published_one():
    """Carlini et al.'s formula with improved-diffusion's cosine schedule, without caa's own parts."""
    network, sigma = small(), 0.5
    betas, steps = [], 4000
    for number in range(steps):
        now, then = (
            torch.cos(torch.tensor(((number + more) / steps + 0.008) / 1.008 * torch.pi / 2, dtype=torch.float64))
            ** 2
            for more in (0, 1)
        )
        betas.append(min(1 - then / now, torch.tensor(0.999, dtype=torch.float64)))
    left = torch.cumprod(1 - torch.stack(betas), 0)
    number = 0
    while ((1 - left[number]) / left[number]) ** 0.5 < 2 * sigma:
        number += 1
    z = left[number].sqrt() * (2 * X.double() - 1)
    noise = network(z, number * 1000 / 4000)[:, :3]
    clean = ((z - (1 - left[number]).sqrt() * noise) / left[number].sqrt()).clamp(-1, 1)
    denoised = recognised(network.weights).build(sigma).double()(X.double())
    assert torch.allclose(denoised, (clean + 1) / 2, rtol=0, atol=1e-9)
    assert not torch.allclose(denoised, X.double(), atol=0.1)


IMPROVED = {"multipliers": (1, 2, 2, 2), "blocks": 3, "attention": (2, 4), "width": 128}
GUIDED = {"multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (8, 16, 32), "width": 256, "head_channels": 64}
GUIDED |= {"resampling_blocks": True}


def test_published_checkpoints_are_recognised():
    """cifar10_uncond_50M_500K.pt and 256x256_diffusion_uncond.pt, by their shapes."""
    cifar = recognised(published(IMPROVED, torch.empty(1, 3, 32, 32, device="meta")).weights)
    assert cifar.arch == "one-step diffusion, U-Net of 52.5 M weights, cosine schedule of 4,000 steps"
    assert (cifar.channels, cifar.size, cifar.multiple) == (3, 32, 8)
    step = cifar.build(0.25)
    assert step.timestep == 1158 / 4
    heads = {module.heads for module in step.modules() if hasattr(module, "heads")}
    assert heads == {4}

    imagenet = recognised(published(GUIDED, torch.empty(1, 3, 64, 64, device="meta")).weights)
    assert imagenet.arch == "one-step diffusion, U-Net of 553 M weights, linear schedule of 1,000 steps"
    assert (imagenet.channels, imagenet.size, imagenet.multiple) == (3, None, 32)
    step = imagenet.build(0.25)
    assert step.timestep == 145
    heads = {module.proj_out.in_channels // module.heads for module in step.modules() if hasattr(module, "heads")}
    assert heads == {64}
    check_images(imagenet, (3, 224, 224), "imagenet")  # as in the published code
    with pytest.raises(UsageError, match="takes images of at least 128 pixels, imagenet has 3×64×64") as caught:
        check_images(imagenet, (3, 64, 64), "imagenet")
    assert caught.value.hint == "add --image-size 128"


def test_improved_and_guided_diffusion_themselves(monkeypatch):
    """The authors' own code, where a folder holds it."""
    folder = os.environ.get("DIFFUSION_CODE")
    if folder is None:
        pytest.skip("set DIFFUSION_CODE to a folder with OpenAI's packages improved_diffusion and guided_diffusion")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(sys.modules, "mpi4py", ModuleType("mpi4py"))
    sys.modules["mpi4py"].MPI = None
    improved = importlib.import_module("improved_diffusion.unet").UNetModel
    guided = importlib.import_module("guided_diffusion.unet").UNetModel
    common: dict[str, Any] = {"in_channels": 3, "out_channels": 6, "num_res_blocks": 1, "attention_resolutions": (2,)}
    common |= {"channel_mult": (1, 2), "model_channels": 32, "use_scale_shift_norm": True}
    head: dict[str, Any] = {"num_head_channels": 16}
    for network, flags in [
        (improved(num_heads=4, **common), None),
        (guided(16, resblock_updown=True, **head, **common), head),
        (
            guided(16, resblock_updown=True, use_new_attention_order=True, **head, **common),
            {**head, "use_new_attention_order": True},
        ),
    ]:
        for parameter in network.parameters():  # many are zero at first
            torch.nn.init.normal_(parameter, std=0.1 if parameter.dim() == 1 else parameter[0].numel() ** -0.5)
        ours = recognised(network.state_dict(), flags).build(0.25).network
        with torch.no_grad():
            expected = network.eval()(X, torch.tensor([78.25, 78.25]))
            assert float((ours(X, 78.25) - expected).norm() / expected.norm()) < 1e-5


def test_gradient_is_that_of_finite_differences_recomputed_or_not():
    step = recognised(small().weights).build(0.5).double().requires_grad_(False)
    x = (0.3 + 0.4 * X[:1, :, :8, :8]).double().requires_grad_()
    weights = torch.randn(x.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * step(x)).sum(), x)
    along, length = torch.randn(x.shape, dtype=torch.float64), 1e-6
    with torch.no_grad():
        there, back = ((weights * step(x + sign * length * along)).sum() for sign in (1, -1))
    assert float((there - back) / (2 * length)) == pytest.approx(float((gradient * along).sum()), rel=1e-5)

    before = graph_bytes(step, x)
    assert recompute_activations(step, x.detach())
    assert graph_bytes(step, x) < before / 3
    (again,) = torch.autograd.grad((weights * step(x)).sum(), x)
    assert (again - gradient).norm() <= 1e-10 * gradient.norm()


def test_timesteps_are_told_apart_in_bfloat16():
    """289.5 is no bfloat16 number: its sines would be those of 290."""
    told = timestep_embedding(289.5, 32, torch.empty(0, dtype=torch.bfloat16))
    exact = timestep_embedding(289.5, 32, torch.empty(0, dtype=torch.float64))
    assert told.dtype == torch.bfloat16
    assert torch.allclose(told.double(), exact, rtol=0, atol=2**-8)


@pytest.mark.parametrize("ending", ["plain", "parallel", "half", "safetensors"])
def test_files(tmp_path, ending):
    network, path = small(), tmp_path / "x.pt"
    if ending == "safetensors":
        save_file(network.weights, path)
    else:
        prefix = "module." if ending == "parallel" else ""
        weights = {
            prefix + name: value.half() if ending == "half" else value for name, value in network.weights.items()
        }
        torch.save(weights, path)
    step = open_denoiser(path).build(0.25)
    expected = network(X, 2.0)
    assert float((step.network(X, 2.0).detach() - expected).norm() / expected.norm()) < (
        1e-2 if ending == "half" else 1e-5
    )


def test_flags_beside_the_weights(tmp_path):
    save_file(small().weights, tmp_path / "x.safetensors")
    flags = tmp_path / "flags.json"
    flags.write_text(json.dumps({"diffusion_steps": 100, "noise_schedule": "linear", "image_size": 16, "lr": 1e-4}))
    found = open_denoiser(tmp_path)
    assert found.size == 16
    assert found.arch.endswith("linear schedule of 100 steps")
    left = torch.cumprod(1 - torch.linspace(0.001, 0.2, 100, dtype=torch.float64), 0)
    step = int(((1 - left) / left >= 0.25).int().argmax())
    assert found.build(0.25).timestep == 10 * step
    flags.write_text(json.dumps({"noise_schedule": "quadratic"}))
    with pytest.raises(CaaError, match="noise_schedule"):
        open_denoiser(tmp_path)
    flags.write_text(json.dumps({"num_heads": 3}))
    with pytest.raises(CaaError, match="64 channels can't be shared out among 3 attention heads"):
        open_denoiser(tmp_path)


def test_parameters_of_the_file_are_left_alone():
    """The weights are there once; what is done to a network must not reach another that is made of them."""
    weights = {name: torch.nn.Parameter(value) for name, value in small().weights.items()}
    found = recognised(weights)
    before = found.build(0.25)(X)
    found.build(0.25).double().requires_grad_(False)
    assert all(value.dtype == torch.float32 and value.requires_grad for value in weights.values())
    assert torch.equal(found.build(0.25)(X), before)


def without(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {other: value for other, value in tensors.items() if other != name}


def test_networks_that_want_more_than_the_image():
    weights = small().weights
    with pytest.raises(UsageError, match="class-conditional") as caught:
        recognised({**weights, "label_emb.weight": torch.zeros(10, 128)})
    assert "256x256_diffusion_uncond.pt" in str(caught.value.hint)
    with pytest.raises(UsageError, match="conditioned on a text"):
        recognised({**weights, "middle_block.1.transformer_blocks.0.norm1.weight": torch.ones(64)})
    with pytest.raises(UsageError, match="takes 6 channels and returns 3"):
        recognised(
            published({"multipliers": (1,), "blocks": 1, "channels": 6, "outputs": 3}, X.repeat(1, 2, 1, 1)).weights
        )


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("middle_block.0.in_layers.2.weight", None),
        ("input_blocks.1.0.emb_layers.1.bias", None),
        ("input_blocks.1.0.in_layers.2.weight", (48, 32, 3, 3)),
        ("output_blocks.1.0.skip_connection.weight", (64, 70, 1, 1)),
        ("time_embed.0.weight", (7,)),
        ("out.0.weight", (31,)),
        ("input_blocks.x.0.weight", (3,)),
        ("surplus.weight", (3,)),
    ],
)
def test_tensors_that_make_no_network(name, shape):
    tensors = without(small().weights, name)
    if shape is not None:
        tensors[name] = torch.zeros(shape)
    with pytest.raises(
        CaaError, match="has the names of a diffusion U-Net, but its tensors and flags don't make one"
    ):
        recognised(tensors)


def test_a_network_that_was_quantised_to_integers_is_refused():
    with pytest.raises(CaaError, match="is of type int8"):
        recognised(quantised(small().weights))


def test_a_classifier_of_noisy_images_is_no_denoiser():
    weights = small().weights
    found = recognise(
        DenoiserFile(
            path=Path("x"),
            sha256="",
            weights=Weights(
                format="", tensors=without(weights, "out.2.weight"), path=Path("x"), sha256="", size=0, card=None
            ),
        )
    )
    assert found is None
