"""Networks for 32×32 images as published code defines and saves them, independent of caa's own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv3(inputs: int, outputs: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=bias)


class Pad(nn.Module):
    """He et al.'s option A: a layer without weights."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros(len(x), self.planes, x.shape[2] // 2, x.shape[3] // 2)
        y[:, self.planes // 4 : self.planes // 4 + x.shape[1]] = x[:, :, ::2, ::2]
        return y


class Basic(nn.Module):
    """A block whose shortcut is called so, and is a (perhaps empty) sequence."""

    def __init__(self, inputs: int, planes: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3(inputs, planes, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv3(planes, planes), nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != planes:
            projection = nn.Conv2d(inputs, planes, kernel_size=1, stride=stride, bias=False)
            self.shortcut = Pad(planes) if option == "A" else nn.Sequential(projection, nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class LinearResNet(nn.Module):
    """Kuang Liu's ResNet-18 (four stages from 64), and the option-A networks (three from 16): `linear` at the end."""

    def __init__(self, blocks: list[int], first: int, option: str, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv3(3, first), nn.BatchNorm2d(first)
        inputs = first
        for stage, count in enumerate(blocks):
            planes, layers = first * 2**stage, []
            for stride in [1 if stage == 0 else 2] + [1] * (count - 1):
                layers.append(Basic(inputs, planes, stride, option))
                inputs = planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.linear(F.avg_pool2d(x, x.size(3)).view(x.size(0), -1))


class Wide(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.relu1, self.conv1 = (
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            conv3(inputs, planes, stride),
        )
        self.bn2, self.relu2, self.conv2 = nn.BatchNorm2d(planes), nn.ReLU(inplace=True), conv3(planes, planes)
        self.same = inputs == planes
        self.convShortcut = None if self.same else nn.Conv2d(inputs, planes, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            out = self.relu1(self.bn1(x))
        else:
            x = self.relu1(self.bn1(x))
        out = self.relu2(self.bn2(self.conv1(out if self.same else x)))
        return torch.add(x if self.same else self.convShortcut(x), self.conv2(out))


class WideStage(nn.Module):
    def __init__(self, inputs: int, planes: int, count: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *[Wide(inputs if i == 0 else planes, planes, stride if i == 0 else 1) for i in range(count)]
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class PublishedWideResNet(nn.Module):
    def __init__(self, depth: int, widen: int, classes: int = 10) -> None:
        super().__init__()
        n, w = (depth - 4) // 6, [16, 16 * widen, 32 * widen, 64 * widen]
        self.conv1 = conv3(3, w[0])
        self.block1, self.block2 = WideStage(w[0], w[1], n, 1), WideStage(w[1], w[2], n, 2)
        self.block3 = WideStage(w[2], w[3], n, 2)
        self.bn1, self.relu, self.fc = nn.BatchNorm2d(w[3]), nn.ReLU(inplace=True), nn.Linear(w[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))))
        return self.fc(F.avg_pool2d(x, 8).view(len(x), -1))


class PublishedDenseNet(nn.Module):
    def __init__(
        self, depth: int, growth: int, compressed: bool, last: str = "norm_final", classes: int = 10
    ) -> None:
        super().__init__()
        self.last, self.features = last, nn.Sequential()
        width = 2 * growth if compressed else 16
        self.features.add_module("conv0", conv3(3, width))
        for block in (1, 2, 3):
            layers = nn.Sequential()
            for number in range((depth - 4) // (6 if compressed else 3)):
                layer = nn.Sequential()
                layer.add_module("norm1", nn.BatchNorm2d(width))
                layer.add_module("relu1", nn.ReLU(inplace=True))
                if compressed:
                    layer.add_module("conv1", nn.Conv2d(width, 4 * growth, 1, bias=False))
                    layer.add_module("norm2", nn.BatchNorm2d(4 * growth))
                    layer.add_module("relu2", nn.ReLU(inplace=True))
                    layer.add_module("conv2", conv3(4 * growth, growth))
                else:
                    layer.add_module("conv1", conv3(width, growth))
                layers.add_module(f"denselayer{number + 1}", layer)
                width += growth
            self.features.add_module(f"denseblock{block}", layers)
            if block < 3:
                halved = width // 2 if compressed else width
                transition = nn.Sequential()
                transition.add_module("norm", nn.BatchNorm2d(width))
                transition.add_module("relu", nn.ReLU(inplace=True))
                transition.add_module("conv", nn.Conv2d(width, halved, 1, bias=False))
                transition.add_module("pool", nn.AvgPool2d(2))
                self.features.add_module(f"transition{block}", transition)
                width = halved
        self.features.add_module(last, nn.BatchNorm2d(width))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, part in self.features.named_children():
            if name.startswith("denseblock"):
                for layer in part:
                    x = torch.cat([x, layer(x)], 1)
            else:
                x = part(x)
        return self.classifier(F.avg_pool2d(F.relu(x), 8).view(len(x), -1))


class PublishedVgg(nn.Module):
    """Kuang Liu's: an average pooling of a single pixel before the only linear layer."""

    SIXTEEN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for item in self.SIXTEEN:
            if item == "M":
                layers += [nn.MaxPool2d(kernel_size=2, stride=2)]
            else:
                layers += [conv3(inputs, item, bias=True), nn.BatchNorm2d(item), nn.ReLU(inplace=True)]
                inputs = item
        self.features = nn.Sequential(*layers, nn.AvgPool2d(kernel_size=1, stride=1))
        self.classifier = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))
