"""Networks for 32×32 images as published code has them, with its names of the tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _WideBlock(nn.Module):
    """Normalisation and ReLU before each of two 3×3 convolutions; a 1×1 convolution where the width changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if channels_in != channels:
            self.convShortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        # Where the width changes, the shortcut too begins after the activation.
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        residual: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return residual + shortcut


class _WideStage(nn.Module):
    def __init__(self, channels_in: int, channels: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = _WideBlock(channels_in, channels, stride)
        self.layer = nn.Sequential(first, *[_WideBlock(channels, channels, 1) for _ in range(blocks - 1)])

    def forward(self, x: Tensor) -> Tensor:
        stage: Tensor = self.layer(x)
        return stage


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis' (2016) WRN-depth-width of depth 6·blocks + 4: `conv1`, `block1.layer.0…`, `bn1`, …"""

    def __init__(self, blocks: int, width: int, num_classes: int, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        self.block1 = _WideStage(16, 16 * width, blocks, 1)
        self.block2 = _WideStage(16 * width, 32 * width, blocks, 2)
        self.block3 = _WideStage(32 * width, 64 * width, blocks, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(F.relu(self.bn1(x)).mean(dim=(2, 3)))
        return logits


class _DenseLayer(nn.Module):
    """`growth` channels more; through 4·growth channels first where `bottleneck`."""

    def __init__(self, channels: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.norm2: nn.Module | None = None
        if bottleneck:
            self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(4 * growth)
            self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.norm1(x)))
        if self.norm2 is not None:
            new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat([x, new], dim=1)


class _Transition(nn.Module):
    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class CifarDenseNet(nn.Module):
    """Huang et al.'s (2017) DenseNet of three blocks of `layers`: `features.denseblock1.denselayer1…`.

    With `bottleneck` the BC variant: 1×1 convolutions before the 3×3 ones, transitions that halve the channels, and
    2·growth channels to begin with instead of 16.
    """

    def __init__(
        self, layers: int, growth: int, bottleneck: bool, num_classes: int, input_shape: Sequence[int]
    ) -> None:
        super().__init__()
        width = 2 * growth if bottleneck else 16
        parts: dict[str, nn.Module] = {"conv0": nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False)}
        for block in (1, 2, 3):
            named = {f"denselayer{n + 1}": _DenseLayer(width + n * growth, growth, bottleneck) for n in range(layers)}
            parts[f"denseblock{block}"] = nn.Sequential(OrderedDict(named))
            width += layers * growth
            if block < 3:
                parts[f"transition{block}"] = _Transition(width, narrow := width // 2 if bottleneck else width)
                width = narrow
        parts["norm_final"] = nn.BatchNorm2d(width)
        self.features = nn.Sequential(OrderedDict(parts))
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(F.relu(self.features(x)).mean(dim=(2, 3)))
        return logits


# Channels of the convolutions of each stage; max-pooling follows every stage.
_VGG: dict[int, list[list[int]]] = {
    11: [[64], [128], [256] * 2, [512] * 2, [512] * 2],
    13: [[64] * 2, [128] * 2, [256] * 2, [512] * 2, [512] * 2],
    16: [[64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3],
    19: [[64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4],
}


class CifarVgg(nn.Module):
    """VGG with batch normalisation and one linear layer, as Kuang Liu's CIFAR-10 code has it: `features.N`."""

    def __init__(self, depth: int, num_classes: int, input_shape: Sequence[int]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        channels = input_shape[0]
        for stage in _VGG[depth]:
            for width in stage:
                parts += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits
