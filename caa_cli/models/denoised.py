"""A denoiser in front of a classifier: the base classifier of denoised smoothing (Salman et al., 2020)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class DenoisedClassifier(nn.Module):
    """Noisy pixels → denoiser → resize → classifier → logits. Gradients go through all of it.

    size: (height, width) that the classifier takes; None: as the images are. classifier: normalises by itself.
    """

    def __init__(self, denoiser: nn.Module, classifier: nn.Module, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.classifier = classifier
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        x = self.denoiser(x)
        if self.size is not None and self.size != tuple(x.shape[-2:]):
            # As the published code for ImageNet does (Carlini et al., 2023).
            x = F.interpolate(x, self.size, mode="bicubic", antialias=True)
        logits: Tensor = self.classifier(x)
        return logits
