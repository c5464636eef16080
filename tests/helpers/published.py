"""Networks as published code defines them, independent of caa's own, and files as that code saves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from published_cifar import LinearResNet, PublishedDenseNet, PublishedVgg, PublishedWideResNet
from torch import Tensor, nn
from torchvision import models


class Block(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (self.downsample(x) if self.downsample else x))


class ThinResNet(nn.Module):
    """The ResNet of Cohen et al. and MACER for 32×32 images: an average pooling of 8 at its end."""

    def __init__(self, depth: int, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        sizes = [width, width, 2 * width, 4 * width]
        for stage in (1, 2, 3):
            first = Block(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2)
            blocks = [first, *[Block(sizes[stage], sizes[stage], 1) for _ in range(n - 1)]]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool = nn.AvgPool2d(8)
        self.fc = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(self.avgpool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))


class PublishedLeNet(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5, 1)
        self.conv2 = nn.Conv2d(20, 50, 5, 1)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2, 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2, 2)
        return self.fc2(torch.relu(self.fc1(x.view(-1, 800))))


class Normalise(nn.Module):
    """As in Cohen's code: its constants are no buffers, so they are not saved."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.means, self.sds = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.means) / self.sds


class Attribute(nn.Module):
    """The authors' of the paper: the network is kept as `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def three_by_three(network: nn.Module) -> nn.Module:
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    return network


def seasoned(network: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with statistics of batches that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return network.eval()


def cohen(arch: str) -> Callable[[nn.Module], Any]:
    return lambda wrapped: {
        "epoch": 90,
        "arch": arch,
        "state_dict": wrapped.state_dict(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
    }


def macer(network: nn.Module) -> Any:
    return {"net": network.state_dict(), "epoch": 440}


def bare(network: nn.Module) -> Any:
    return network.state_dict()


def timm(network: nn.Module) -> Any:
    from argparse import Namespace

    state = network.state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    return {"epoch": 3, "arch": "resnet18", "args": Namespace(lr=0.1), "state_dict": state, "state_dict_ema": other}


CIFAR, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Case:
    """One row of the table: the network, what it is wrapped in before it is saved, and what has to come of it."""

    network: Callable[[], nn.Module]
    wrap: Callable[[nn.Module], nn.Module]
    save: Callable[[nn.Module], Any]
    arch: str
    dataset: str
    shape: tuple[int, int, int]
    classes: int
    normalisation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tensors: int
    first: str
    source: str
    flags: tuple[str, ...] = field(default=())

    @lru_cache(maxsize=1)  # noqa: B019, the cases are there as long as the process
    def reference(self) -> nn.Module:
        torch.manual_seed(0)
        return seasoned(self.network())

    def write(self, path: Path) -> Path:
        torch.save(self.save(self.wrap(self.reference())), path)
        return path

    def logits(self, images: Tensor) -> Tensor:
        """Of images in [0, 1], by the published definition; grey ones are repeated for a network of colour images."""
        normal = (images - torch.tensor(self.mean).view(-1, 1, 1)) / torch.tensor(self.std).view(-1, 1, 1)
        if self.shape[0] == 1 and "resnet" in self.arch:
            normal = normal.repeat(1, 3, 1, 1)
        with torch.no_grad():
            return self.reference()(normal)


def in_front(network: nn.Module) -> nn.Module:
    return nn.Sequential(Normalise(CIFAR, CIFAR_STD), network)


def in_front_parallel(network: nn.Module) -> nn.Module:
    return nn.Sequential(Normalise(IMAGENET, IMAGENET_STD), nn.DataParallel(network))


def as_is(network: nn.Module) -> nn.Module:
    return network


def parallel(network: nn.Module) -> nn.Module:
    return nn.DataParallel(network)


def kuangliu(network: nn.Module) -> Any:
    return {"net": network.state_dict(), "acc": 95.1, "epoch": 199}


def resnet18(classes: int) -> Callable[[], nn.Module]:
    return lambda: models.resnet18(weights=None, num_classes=classes)


_C = ("cifar10", (3, 32, 32), 10)
_M = ("mnist", (1, 28, 28), 10)
_I = ("imagenet", (3, 224, 224), 1000)
_COHEN = "Cohen et al., SmoothAdv, Consistency or SmoothMix"
_PAPER = "the authors of Et Tu Certifications"
_SMOOTHED = "code for smoothed networks: CIFAR"
_OPTION_A = "He et al.'s ResNet as Yerlan Idelbayev trained it: CIFAR-10"
_PAPER_STD = (0.247, 0.243, 0.261)

# fmt: off
CASES = {
    "Cohen, CIFAR-10, ResNet-110": Case(
        lambda: ThinResNet(110), in_front, cohen("cifar_resnet110"), "resnet110", *_C,
        "cifar10", CIFAR, CIFAR_STD, 668, "1.conv1.weight", f"{_COHEN}: CIFAR-10"),
    "Cohen, CIFAR-10, ResNet-20": Case(
        lambda: ThinResNet(20), in_front, cohen("cifar_resnet20"), "resnet20", *_C,
        "cifar10", CIFAR, CIFAR_STD, 128, "1.conv1.weight", f"{_COHEN}: CIFAR-10"),
    "Cohen, ImageNet": Case(
        lambda: models.resnet50(weights=None), in_front_parallel, cohen("resnet50"), "resnet50", *_I,
        "imagenet", IMAGENET, IMAGENET_STD, 320, "1.module.conv1.weight", f"{_COHEN}: ImageNet"),
    "Consistency, MNIST": Case(
        PublishedLeNet, lambda net: nn.Sequential(nn.Identity(), net), cohen("lenet"), "lenet", *_M,
        "none", (0.0,), (1.0,), 8, "1.conv1.weight", "Consistency or SmoothMix: MNIST"),
    "SmoothAdv, CIFAR-10, mean only": Case(
        lambda: ThinResNet(20), in_front, cohen("cifar_resnet20"), "resnet20", *_C,
        "cifar10-mean-only", CIFAR, (1.0, 1.0, 1.0), 128, "1.conv1.weight", f"{_COHEN}: CIFAR-10",
        ("--normalisation", "cifar10-mean-only")),
    "SmoothAdv, ImageNet, mean only": Case(
        lambda: models.resnet50(weights=None), in_front_parallel, cohen("resnet50"), "resnet50", *_I,
        "imagenet-mean-only", IMAGENET, (1.0, 1.0, 1.0), 320, "1.module.conv1.weight", f"{_COHEN}: ImageNet",
        ("--normalisation", "imagenet-mean-only")),
    "MACER, CIFAR-10": Case(
        lambda: ThinResNet(110), as_is, macer, "resnet110", *_C,
        "none", (0.0,), (1.0,), 668, "conv1.weight", "MACER: CIFAR-10"),
    "MACER, MNIST": Case(
        PublishedLeNet, as_is, macer, "lenet", *_M, "none", (0.0,), (1.0,), 8, "conv1.weight", "MACER: MNIST"),
    "paper, CIFAR-10": Case(
        resnet18(10), Attribute, bare, "resnet18", *_C,
        "cifar10-paper", CIFAR, _PAPER_STD, 122, "model.conv1.weight", f"{_PAPER}: CIFAR-10 or MNIST"),
    "paper, MNIST": Case(
        resnet18(10), Attribute, bare, "resnet18", *_M,
        "mnist", (0.1307,), (0.3081,), 122, "model.conv1.weight", f"{_PAPER}: CIFAR-10 or MNIST"),
    "paper, ImageNet": Case(
        lambda: three_by_three(models.resnet18(weights=None)), Attribute, bare, "resnet18-3x3", *_I,
        "imagenet", IMAGENET, IMAGENET_STD, 122, "model.conv1.weight", f"{_PAPER}: ImageNet"),
    "torchvision": Case(
        lambda: models.resnet50(weights=None), as_is, bare, "resnet50", *_I,
        "imagenet", IMAGENET, IMAGENET_STD, 320, "conv1.weight", "torchvision or timm: ImageNet"),
    "torchvision, ResNet-34": Case(
        lambda: models.resnet34(weights=None), as_is, bare, "torchvision.models:resnet34", *_I,
        "imagenet", IMAGENET, IMAGENET_STD, 218, "conv1.weight", "torchvision or timm: ImageNet"),
    "timm": Case(
        resnet18(1000), as_is, timm, "resnet18", *_I,
        "imagenet", IMAGENET, IMAGENET_STD, 122, "conv1.weight", "torchvision or timm: ImageNet"),
    "smoothing code, WRN-40-2": Case(
        lambda: PublishedWideResNet(40, 2), in_front, cohen("wrn"), "wrn-40-2", *_C,
        "cifar10", CIFAR, CIFAR_STD, 227, "1.conv1.weight", _SMOOTHED),
    "smoothing code, DenseNet-40": Case(
        lambda: PublishedDenseNet(40, 12, False), in_front, cohen("densenet"), "densenet-40-12", *_C,
        "cifar10", CIFAR, CIFAR_STD, 236, "1.features.conv0.weight", _SMOOTHED),
    "DenseNet-BC": Case(
        lambda: PublishedDenseNet(22, 12, True, "norm5"), as_is, bare, "densenet-bc-22-12", *_C,
        "cifar10", CIFAR, CIFAR_STD, 128, "features.conv0.weight", "a state dict of densenet-bc-22-12"),
    "Kuang Liu, ResNet-18": Case(
        lambda: LinearResNet([2, 2, 2, 2], 64, "B"), parallel, kuangliu, "resnet18-cifar", *_C,
        "cifar10", CIFAR, CIFAR_STD, 122, "module.conv1.weight", "a state dict of resnet18-cifar"),
    "Kuang Liu, VGG-16": Case(
        PublishedVgg, parallel, kuangliu, "vgg16-cifar", *_C,
        "cifar10", CIFAR, CIFAR_STD, 93, "module.features.0.weight", "a state dict of vgg16-cifar"),
    "option A, ResNet-20": Case(
        lambda: LinearResNet([3, 3, 3], 16, "A"), parallel, cohen("resnet20"), "resnet20-a", *_C,
        "imagenet", IMAGENET, IMAGENET_STD, 116, "module.conv1.weight", _OPTION_A),
    "option A, ResNet-56": Case(
        lambda: LinearResNet([9, 9, 9], 16, "A"), parallel, cohen("resnet56"), "resnet56-a", *_C,
        "imagenet", IMAGENET, IMAGENET_STD, 332, "module.conv1.weight", _OPTION_A),
}
# fmt: on
