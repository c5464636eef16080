"""FFDNet, a fast denoiser that is told the noise level (Zhang et al., 2018)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from caa_cli.models.denoisers.convolutions import convolutions, fitted_denoiser
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.runtime.words import counted

# Four quarters of the image, 2×2 pixels of it each in one place.
_FACTOR = 2


class FFDNet(nn.Module):
    """Convolutions on the image's four quarters (2×2 pixel-unshuffle) and a plane that holds σ; ReLU between them.

    depth: convolutions of 3×3.  width: channels between them.  sigma: in [0, 1] pixel units.
    The tensors have the names of the published code: `model.0.weight`, …
    """

    def __init__(self, sigma: float, channels: int = 3, depth: int = 12, width: int = 96) -> None:
        super().__init__()
        self.sigma = sigma
        parts = channels * _FACTOR**2
        layers: list[nn.Module] = [nn.Conv2d(parts + 1, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.Conv2d(width, parts, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        odd = height % _FACTOR, width % _FACTOR
        if any(odd):
            x = F.pad(x, (0, odd[1], 0, odd[0]), mode="replicate")
        # Padded, not concatenated: one copy of the image less.
        x = F.pad(F.pixel_unshuffle(x, _FACTOR), (0, 0, 0, 0, 0, 1), value=self.sigma)
        x = F.pixel_shuffle(self.model(x), _FACTOR)
        return x[..., :height, :width]


def recognise(file: DenoiserFile) -> Denoiser | None:
    """The FFDNet that these weights are of, grey or colour, of any depth and width; None if they are of none."""
    layers = convolutions(file.weights.tensors, "model.0.weight")
    if layers is None:
        return None
    (width, parts, *_), depth = layers
    channels, rest = divmod(parts - 1, _FACTOR**2)
    if channels < 1 or rest:
        return None
    return fitted_denoiser(
        file,
        lambda sigma: FFDNet(sigma, channels, depth, width),
        family="ffdnet",
        arch=f"FFDNet, {counted(depth, 'layer')} of {counted(width, 'channel')}",
        channels=channels,
    )
