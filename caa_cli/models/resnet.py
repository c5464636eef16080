"""Residual networks: torchvision's with three stems, and the thin ones for CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def torchvision_resnet(depth: int, num_classes: int, stem: str = "7x7") -> nn.Module:
    """torchvision's ResNet of this depth (18, 34, 50, 101, 152), randomly initialised.

    stem: `7x7`, stride 2, with max-pooling (torchvision's own, and the paper's for 28×28 and 32×32 images); `3x3`,
    stride 1, with max-pooling (the paper's for ImageNet); `cifar`, 3×3, stride 1, without max-pooling.
    """
    with torch.device("cpu"):  # importing torchvision may compute with tensors, which must not be meta tensors
        from torchvision import models
    network: nn.Module = getattr(models, f"resnet{depth}")(weights=None, num_classes=num_classes)
    if stem != "7x7":
        network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if stem == "cifar":
        network.maxpool = nn.Identity()
    return network


class _Block(nn.Module):
    """Two 3×3 convolutions; where the shape changes the shortcut is a 1×1 convolution, or every other pixel `padded`
    with channels of zeros on either side."""

    def __init__(self, channels_in: int, channels: int, stride: int, padded: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        self.added = channels - channels_in if padded else 0
        if not padded and (stride != 1 or channels_in != channels):
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.added:
            shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))
        else:
            shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class CifarResNet(nn.Module):
    """He et al.'s (2016) ResNet of depth 6·blocks + 2 for 32×32 images; its tensors are named as by Cohen et al.

    padded: their option A, shortcuts without weights; else Cohen et al.'s variant of option B.
    """

    def __init__(self, blocks: int, padded: bool, num_classes: int, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1, padded)
        self.layer2 = self._stage(16, 32, blocks, 2, padded)
        self.layer3 = self._stage(32, 64, blocks, 2, padded)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(channels_in: int, channels: int, blocks: int, stride: int, padded: bool) -> nn.Sequential:
        first = _Block(channels_in, channels, stride, padded)
        return nn.Sequential(first, *[_Block(channels, channels, 1, padded) for _ in range(blocks - 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits
