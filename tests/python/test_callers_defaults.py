"""What a caller has set of PyTorch's defaults changes no result, and is the same afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch

import caa_cli

SHORT = {"samples": 60, "iterations": 3, "verify_samples": 500, "selection_samples": 100, "chunk_size": 256}


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def elsewhere() -> Iterator[None]:
    """As on a machine whose default device is a GPU: a tensor that lands there is of no use to the host."""
    with torch.device("meta"):
        yield
        assert torch.empty(0).is_meta


@contextmanager
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield
        assert torch.is_inference_mode_enabled()


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")


DEFAULTS = [float64, elsewhere, inference, autocast, torch.no_grad]


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = caa_cli.load_images("demo", indices=[8, 1])
    return images, labels


@pytest.mark.parametrize("defaults", DEFAULTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("method", ["caa", "caa-newton", "autoattack"])
def test_an_attack_is_the_same_within(
    method: str, defaults: Callable[[], AbstractContextManager[None]], images: tuple[torch.Tensor, torch.Tensor]
):
    expected = caa_cli.attack(caa_cli.load("demo", device="cpu"), *images, method, **SHORT)
    with defaults():
        x, y = caa_cli.load_images("demo", indices=[8, 1])
        found = caa_cli.attack(caa_cli.load("demo", device="cpu"), x, y, method, **SHORT)
    assert np.array_equal(found.radius_search, expected.radius_search, equal_nan=True)
    assert np.array_equal(found.adversarial, expected.adversarial, equal_nan=True)


@pytest.mark.parametrize("defaults", DEFAULTS, ids=lambda kind: kind.__name__)
def test_certificates_votes_and_gradients_are_the_same_within_and_after(
    defaults: Callable[[], AbstractContextManager[None]], images: tuple[torch.Tensor, torch.Tensor]
):
    def everything(model: caa_cli.SmoothedClassifier) -> list[torch.Tensor]:
        x, y = images
        radii = caa_cli.certify(model, x, y, samples=500, chunk_size=256).radius
        return [torch.from_numpy(radii), model.votes(x, samples=200), model.gradient(x, y, samples=200)]

    model = caa_cli.load("demo", device="cpu")
    expected = everything(model)
    model = caa_cli.load("demo", device="cpu")
    with defaults():
        within = everything(model)
    for found in (within, everything(model)):  # its memory is used again
        assert [part.dtype for part in found] == [torch.float64, torch.int64, torch.float32]
        assert all(map(torch.equal, found, expected))


def test_images_that_take_gradients_are_voted_on(images: tuple[torch.Tensor, torch.Tensor]):
    model = caa_cli.load("demo", device="cpu")
    x = images[0].clone().requires_grad_()
    assert torch.equal(model.votes(x, samples=100), model.votes(images[0], samples=100))
    gradients = [model.gradient(given, images[1], samples=100) for given in (x, images[0])]
    assert torch.equal(*gradients)
    assert x.grad is None


class Recording(torch.nn.Linear):
    """Also keeps cuDNN's switches, which say how a GPU computes it."""

    def __init__(self) -> None:
        super().__init__(28 * 28, 10)
        self.seen: set[tuple[bool, bool]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add((torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32))
        return super().forward(x.flatten(1))


@pytest.mark.parametrize("rounded", [False, True])
def test_a_network_of_ones_own_is_repeated_exactly_and_rounded_as_its_products(
    rounded: bool, images: tuple[torch.Tensor, torch.Tensor]
):
    """PyTorch rounds convolutions on a GPU to TF32 unless it is told not to, but not matrix products."""
    cudnn, (x, y) = torch.backends.cudnn, images
    before = cudnn.deterministic, cudnn.allow_tf32
    network = Recording()
    torch.set_float32_matmul_precision("high" if rounded else "highest")
    cudnn.deterministic, cudnn.allow_tf32 = False, True
    try:
        model = caa_cli.SmoothedClassifier(network, sigma=0.5, num_classes=10, input_shape=(1, 28, 28))
        model.gradient(x, y, samples=20)
        predicted = model.votes(x, samples=20).argmax(dim=1)
        caa_cli.certify(model, x, samples=1000, chunk_size=256)
        caa_cli.attack(model, x, predicted, **SHORT)
        assert network.seen == {(True, rounded)}
        assert (cudnn.deterministic, cudnn.allow_tf32) == (False, True)
    finally:
        torch.set_float32_matmul_precision("highest")
        cudnn.deterministic, cudnn.allow_tf32 = before
