"""DnCNN, the convolutional denoiser of denoised smoothing (Salman et al., 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from caa_cli.models.denoisers.convolutions import convolutions, fitted_denoiser
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.runtime.words import counted

# As published; no file says so.
_EPSILON, _MOMENTUM = 1e-4, 0.95


class DnCNN(nn.Module):
    """Zhang et al.'s (2017) network, which predicts the noise: x − net(x), not clipped.

    depth: convolutions of 3×3, all but the first and the last with BatchNorm.  width: channels between them.
    The tensors have the names of Salman et al.'s code: `dncnn.0.weight`, …
    """

    def __init__(self, channels: int = 3, depth: int = 17, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width, eps=_EPSILON, momentum=_MOMENTUM),
                nn.ReLU(),
            ]
        self.dncnn = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        noise: Tensor = self.dncnn(x)
        return x - noise


def recognise(file: DenoiserFile) -> Denoiser | None:
    """The DnCNN that these weights are of, of any depth and width; None if they are of none."""
    layers = convolutions(file.weights.tensors, "dncnn.0.weight")
    if layers is None:
        return None
    (width, channels, *_), depth = layers
    return fitted_denoiser(
        file,
        lambda sigma: DnCNN(channels, depth, width),
        family="dncnn",
        arch=f"DnCNN, {counted(depth, 'layer')} of {counted(width, 'channel')}",
        channels=channels,
    )
