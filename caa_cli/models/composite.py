"""Networks put together: a denoiser in front of a classifier, and ensembles. Gradients go through all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caa_cli.config.choices import ENSEMBLE_VOTES, LOGITS

# What the majority's logit exceeds the largest by, so that rounding can't hide it.
_LEAD = 1e-3


class DenoisedClassifier(nn.Module):
    """Noisy pixels → denoiser → classifier → logits: the base classifier of denoised smoothing (Salman et al., 2020).

    denoiser: maps images to images (see `denoisers.denoiser.Denoiser`). classifier: takes pixels around [0, 1].
    """

    def __init__(self, denoiser: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.denoiser(x))
        return logits


class ResizedClassifier(nn.Module):
    """Images of any size → images of `size`, (height, width) → classifier → logits.

    Bicubic with antialiasing, as the published code of diffusion denoisers does it (Carlini et al., 2023). It is
    linear in rows and in columns, so two matrices do it: their gradient is faster, and no sum of chance on a GPU.
    """

    def __init__(self, classifier: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.classifier = classifier
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))  # PyTorch resizes no bfloat16 on a CPU
        rows, columns = (_resizing(*pair, exact) for pair in zip(x.shape[2:], self.size, strict=True))
        logits: Tensor = self.classifier((rows @ exact @ columns.T).to(x.dtype))
        return logits


def _resizing(length: int, resized: int, like: Tensor) -> Tensor:
    """The matrix (resized, length) that resizes a line of pixels."""
    identity = torch.eye(length, dtype=like.dtype, device=like.device)[None, None]
    return F.interpolate(identity, (resized, length), mode="bicubic", antialias=True)[0, 0]


class Ensemble(nn.Module):
    """Several classifiers of the same images and classes as one (Horváth et al., 2022).

    kind: `logits`, the mean of the logits; `softmax`, the log of the mean softmax; `votes`, the majority of the
    members' decisions, and of classes with as many votes the one with the largest mean softmax.

    A majority has no gradient. `votes` returns the log of the mean softmax, with the logit of the majority's class
    raised above the others by a constant where it is not the largest: argmax is the majority, and the gradient of
    each logit is that of the mean softmax. Logits are float32, or float64 where the members' are.
    """

    def __init__(self, members: Sequence[nn.Module], kind: str = LOGITS) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.stack([member(x) for member in self.members])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.kind == LOGITS:
            return logits.mean(dim=0)
        log_mean = torch.log_softmax(logits, dim=2).logsumexp(dim=0) - torch.tensor(len(logits)).log().item()
        return _led_by_majority(log_mean, logits.detach()) if self.kind == ENSEMBLE_VOTES else log_mean


def _led_by_majority(log_mean: Tensor, logits: Tensor) -> Tensor:
    """log_mean (examples, classes), with the largest logit at the class that most members (members, …) vote for.

    NaN stays NaN: the ensemble abstains where a member does.
    """
    values = log_mean.detach()
    votes = F.one_hot(logits.argmax(dim=2), logits.shape[2]).sum(dim=0)
    # A mean softmax is at most 1, so it decides between equal counts alone.
    winner = (votes + 0.5 * values.exp()).argmax(dim=1, keepdim=True)
    top = values.amax(dim=1, keepdim=True)
    lift = top + _LEAD - values.gather(1, winner)
    lift = torch.where(values.argmax(dim=1, keepdim=True) == winner, 0.0, lift)
    return log_mean + torch.zeros_like(values).scatter_(1, winner, lift)
