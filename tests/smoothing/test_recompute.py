"""Activations recomputed in the backward pass: less is kept, and the gradients are the same."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections import Counter

import pytest
import torch
from living import Living
from published_cifar import LinearResNet, PublishedWideResNet
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torchvision import models

from caa_cli.errors import CaaError
from caa_cli.models.composite import Ensemble
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio
from caa_cli.smoothing.recompute import graph_bytes, recompute_activations

IMAGE = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))


class InPlace(nn.Module):
    """A block whose first step overwrites its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu_(x))


def stacked(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(*layers), nn.Flatten(), nn.LazyLinear(10))


def denoiser() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(16):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)]
    return stacked(*layers)


NETWORKS = {
    "residual": lambda: LinearResNet([3, 3, 3], 16, "A"),
    "wide": lambda: PublishedWideResNet(16, 1),
    "dense, with lists that grow": lambda: models.densenet121(num_classes=10),
    "nested": lambda: models.efficientnet_b0(num_classes=10),
    "transformer": lambda: models.VisionTransformer(32, 8, 12, 4, 32, 64, num_classes=10),
    "one long sequence": denoiser,
    "ensemble": lambda: Ensemble([LinearResNet([3, 3, 3], 16, "A") for _ in range(3)]),
}
# Those with blocks in blocks, and what another level may take of the memory that one level does.
NESTED = {"nested": 1.2, "ensemble": 0.8}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    network(IMAGE)  # lazy layers
    if name == "transformer":
        nn.init.normal_(network.heads.head.weight)
    return network.requires_grad_(False)


def gradients(network: nn.Module) -> tuple[Tensor, Tensor, int]:
    """Of two logits, from one graph; and the most bytes that were held."""
    x = IMAGE.clone().requires_grad_(True)
    with Living() as living:
        logits = network(x)
        (first,) = torch.autograd.grad(logits[0, 0], x, retain_graph=True)
        (second,) = torch.autograd.grad(logits[0, 1], x)
    return first, second, living.peak


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_and_less_is_kept(name):
    plain, network = made(name), made(name)
    wanted = gradients(plain)
    assert float(wanted[0].norm()) > 0
    assert recompute_activations(network, IMAGE)
    found = gradients(network)
    for one, other in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
    assert found[2] < 0.75 * wanted[2]
    with torch.no_grad():
        assert torch.equal(network(IMAGE), plain(IMAGE))
    if name not in NESTED:
        assert not recompute_activations(network, IMAGE)  # nothing is left to do


@pytest.mark.parametrize(("name", "most"), NESTED.items())
def test_another_level_recomputes_too_where_one_is_not_enough(name: str, most: float):
    network = made(name)
    wanted, peaks = gradients(network)[0], []
    while recompute_activations(network, IMAGE):
        found = gradients(network)
        torch.testing.assert_close(found[0], wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
        peaks.append(found[2])
    assert len(peaks) >= 2
    assert peaks[-1] < most * peaks[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_no_layer_is_evaluated_more_than_twice(name):
    network, calls = made(name), Counter[nn.Module]()
    assert recompute_activations(network, IMAGE)
    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, inputs, output: calls.update([layer]))
    x = IMAGE.clone().requires_grad_(True)
    torch.autograd.grad(network(x)[0, 0], x)
    assert max(calls.values()) == 2


def test_a_copy_recomputes_with_weights_of_its_own():
    network = made("residual")
    recompute_activations(network, IMAGE)
    other = copy.deepcopy(network).double()
    x = IMAGE.double().requires_grad_(True)
    (gradient,) = torch.autograd.grad(other(x)[0, 0], x)
    torch.testing.assert_close(gradient.float(), gradients(network)[0], rtol=1e-3, atol=1e-5)


def test_a_block_that_overwrites_its_input_is_left_as_it_is():
    network = stacked(InPlace(), InPlace()).eval()
    network(IMAGE)
    network.requires_grad_(False)
    wanted = gradients(network)[0]
    assert not recompute_activations(network, IMAGE)
    assert torch.equal(gradients(network)[0], wanted)


def test_the_graph_is_counted_without_being_kept():
    network, x = made("residual"), IMAGE.clone().requires_grad_(True)
    kept: dict[int, Tensor] = {}
    with saved_tensors_hooks(lambda y: kept.setdefault(y.untyped_storage().data_ptr(), y), lambda y: y):
        network(x)
    weights = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    true = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    with Living() as living:
        counted = graph_bytes(network, IMAGE)
    assert true <= counted < 1.2 * true
    assert living.peak < 0.9 * true


def smoothed(network: nn.Module) -> SmoothedClassifier:
    return SmoothedClassifier(network, sigma=0.25, num_classes=10, input_shape=(3, 32, 32), gradient_chunk=4)


def run(classifier: SmoothedClassifier) -> Tensor:
    keys = [Key(0, 0, Purpose.SEARCH)]
    return classifier.surrogate(IMAGE, torch.tensor([0]), keys, 8, LogRatio(), pilot=8).gradient


def test_a_sample_that_does_not_fit_is_recomputed_and_that_is_said_once():
    wanted, said = run(smoothed(made("residual"))), []
    one = gradients(made("residual"))[2]
    classifier = smoothed(made("residual"))
    classifier.notify = said.append
    with Living(0.9 * one):
        found = [run(classifier), run(classifier)]
    for gradient in found:
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
    assert len(said) == 1
    assert classifier.describe()["activations"] == "recomputed"
    assert "activations" not in smoothed(made("residual")).describe()


def test_what_does_not_fit_even_so_is_one_message():
    classifier = smoothed(made("residual"))
    with Living(100_000), pytest.raises(CaaError, match="one noise sample of this model does not fit"):
        run(classifier)


_UNDER_A_LIMIT = """
import torch
from torch import nn
from caa_cli.runtime.memory import limit_device, peak_resident, resident
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.memory_fit import largest_chunk
block = lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.Tanh())
network = nn.Sequential(nn.Conv2d(1, 4, 1), *[block() for _ in range(40)], nn.AdaptiveAvgPool2d(1), nn.Flatten())
limit_device(torch.device("cpu"), 1)
classifier = SmoothedClassifier(network, sigma=0.25, num_classes=4, input_shape=(1, 512, 512))
limit = resident() + 380_000_000  # one graph takes 340 MB, its blocks' inputs 170, and what PyTorch loads 90
said = []
classifier.notify = said.append
largest_chunk(classifier, limit, gradients=True)
assert len(said) == 1 and peak_resident() < limit, (said, peak_resident(), limit)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of this process only, from /proc")
def test_under_a_memory_limit_recomputing_comes_before_the_limit_is_passed():
    done = subprocess.run([sys.executable, "-c", _UNDER_A_LIMIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
