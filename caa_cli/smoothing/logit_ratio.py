"""The difference-of-logits ratios (Croce and Hein, 2020), with the smoothed logits z = log p̄ for the logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caa_cli.smoothing.objective import Objective, Slopes, label_against_rival, logit_margin, rivals_over_label


@dataclass(frozen=True)
class LogitRatio(Objective):
    """(m + tolerance)/(z_π1 − z_π3), with m the logit margin: the difference-of-logits ratio (Croce and Hein, 2020),
    which does not depend on the scale of the logits.

    reach: for a target in the label's place: (tolerance − m)/(z_π1 − (z_π3 + z_π4)/2). With fewer classes than
    `least_classes` there is no divisor: of three, z_π1 − z_π3 is the margin itself as long as the target is the last.
    """

    tolerance: float = 0.0
    reach: bool = False

    def value(self, log_mean: Tensor, labels: Tensor) -> Tensor:
        """The ratio, (examples,) float32; negative where the label has lost, or the target has won."""
        return self._numerator(log_mean, labels) / _divisor(log_mean, self.least_classes, self.least_classes)[0]

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        sign = label_against_rival(log_mean, labels)
        sign = -sign if self.reach else sign
        divisor = _divisor(log_mean, self.least_classes, self.least_classes)
        return _ratio_slopes(log_mean, sign, self._numerator(log_mean, labels), divisor)

    def to_reach(self) -> Objective:
        return replace(self, reach=True)

    @property
    def least_classes(self) -> int:
        """With fewer classes than these there is no divisor."""
        return 4 if self.reach else 3

    def _numerator(self, log_mean: Tensor, labels: Tensor) -> Tensor:
        margin = logit_margin(log_mean, labels)
        return (-margin if self.reach else margin) + self.tolerance


@dataclass(frozen=True)
class TargetedRatio(Objective):
    """(z_target − z_label)/(z_π1 − (z_π3 + z_π4)/2), the targeted difference-of-logits ratio (Croce and Hein, 2020),
    which grows towards the target. Of three classes the divisor is z_π1 − z_π3, of two it is 1.

    targets: (examples,) int64.
    """

    targets: Tensor

    def value(self, log_mean: Tensor, labels: Tensor) -> Tensor:
        """The ratio, (examples,) float32; positive where the target leads the label."""
        return self._ahead(log_mean, labels) / _divisor(log_mean, 4)[0]

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        _, signs = rivals_over_label(log_mean, labels, self.targets[:, None])
        return _ratio_slopes(log_mean, signs[0], self._ahead(log_mean, labels), _divisor(log_mean, 4))

    def _ahead(self, log_mean: Tensor, labels: Tensor) -> Tensor:
        return (log_mean.gather(1, self.targets[:, None]) - log_mean.gather(1, labels[:, None]))[:, 0]

    def of(self, rows: slice) -> Objective:
        return replace(self, targets=self.targets[rows])


def _ratio_slopes(log_mean: Tensor, sign: Tensor, numerator: Tensor, divisor: tuple[Tensor, Tensor]) -> Slopes:
    """The slopes of a numerator, whose own are `sign` by z, over a divisor, as `_divisor` has it."""
    value, by_z = divisor
    weights = (sign - (numerator / value)[:, None] * by_z) / value[:, None]
    # ∂J/∂p̄ = ∂J/∂z / p̄
    return weights.abs().log() - log_mean, weights.sign()


def _divisor(log_mean: Tensor, last: int, least: int = 3) -> tuple[Tensor, Tensor]:
    """(z_π1 less the mean of z_π3 to z_π`last`, its derivative by each z), π being the classes by decreasing z.

    (1, 0) where there are fewer classes than `least`.
    """
    if log_mean.shape[1] < least:
        return torch.ones_like(log_mean[:, 0]), torch.zeros_like(log_mean)
    values, classes = log_mean.topk(min(last, log_mean.shape[1]), dim=1)
    low = classes[:, 2:]
    by_z = torch.zeros_like(log_mean).scatter_(1, low, -1.0 / low.shape[1]).scatter_(1, classes[:, :1], 1.0)
    return (values[:, 0] - values[:, 2:].mean(dim=1)).clamp(min=1e-12), by_z
