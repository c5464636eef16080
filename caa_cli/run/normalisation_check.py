"""A cheap measurement of accuracy under noise before a run, since a wrong normalisation lowers it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.data.images import Images, readable, spread
from caa_cli.models.architectures import NormalisedClassifier
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose

# The check takes at most this time over all normalisations, and at most so many images and samples of each.
MOST_SECONDS, _IMAGES, _SAMPLES = 2.0, 64, 4
_FEWEST_IMAGES = 12
# A preset is better if its accuracy is higher by so many standard errors of the paired difference, and by _GAIN.
_ERRORS, _GAIN = 3.0, 0.05
# Presets within this of the best count as equal; the likeliest of them is named.
_ALIKE = 0.02


@dataclass
class Plausibility:
    """Compares a model's normalisation with `presets` (the likeliest first), on the same images and the same noise.

    The noise has a key of its own, so a repeated check differs only in how many images there is time for.
    accuracies: what was measured, by preset.
    """

    classifier: SmoothedClassifier
    model: NormalisedClassifier
    images: Images
    presets: Sequence[str]
    accuracies: dict[str, float] = field(default_factory=dict)

    def warning(self) -> str | None:
        """The warning to show, if any."""
        x, labels, indices = self._sample()
        if not indices:
            return None
        affordable = int(MOST_SECONDS / self._seconds(x[0], indices[0])) // (1 + len(self.presets))
        count = min(len(indices), affordable)
        if count < min(_FEWEST_IMAGES, len(indices)):
            return "the normalisation was not checked: the model is too slow here to measure its accuracy"
        samples = min(_SAMPLES, affordable // count)
        x, labels, indices = x[:count], labels[:count], indices[:count]
        shares = self._shares(x, labels, indices, samples)
        accuracy = float(shares.mean())
        accuracy_text = f"accuracy under noise is {100 * accuracy:.0f}% on {counted(count, 'image')}"
        best = self._best_other(x, labels, indices, samples, shares)
        if best is not None:
            return f"{accuracy_text}; with --normalisation {best} it is {100 * self.accuracies[best]:.0f}%"
        guess = 1 / self.classifier.num_classes
        if accuracy < guess + 2 * math.sqrt(guess * (1 - guess) / count):
            return (
                f"{accuracy_text}, no better than guessing, and no other normalisation does clearly better: "
                "do --sigma, --dataset and the weights belong together? A network that was trained without noise "
                "needs a --denoiser in front of it"
            )
        return None

    def _best_other(
        self, x: Tensor, labels: Tensor, indices: list[int], samples: int, baseline: Tensor
    ) -> str | None:
        """The preset that is most accurate, if clearly more so than the model's own normalisation."""
        kept = self.model.mean, self.model.std
        gains: dict[str, Tensor] = {}
        try:
            for name in self.presets:
                mean, std = (torch.tensor(values).view(-1, 1, 1).to(kept[0]) for values in NORMALISATIONS[name])
                self.model.mean, self.model.std = mean, std
                shares = self._shares(x, labels, indices, samples)
                self.accuracies[name], gains[name] = float(shares.mean()), shares - baseline
        finally:
            self.model.mean, self.model.std = kept
        most = max(self.accuracies.values(), default=0.0)
        for name, gain in gains.items():
            if self.accuracies[name] >= most - _ALIKE:
                error = float(gain.std()) / math.sqrt(len(gain)) if len(gain) > 1 else math.inf
                return name if float(gain.mean()) > max(_ERRORS * error, _GAIN) else None
        return None

    def _shares(self, x: Tensor, labels: Tensor, indices: list[int], samples: int) -> Tensor:
        """(images,) float64: the share of noise samples that each image is predicted rightly on."""
        keys = [Key(0, index, Purpose.TUNING, iteration=1) for index in indices]
        votes = self.classifier.keyed_votes(x, keys, samples)
        return votes.gather(1, labels[:, None])[:, 0].cpu().double() / samples

    def _seconds(self, image: Tensor, index: int) -> float:
        """Seconds of one model evaluation, measured on a few."""
        began, few = time.perf_counter(), 8
        self.classifier.keyed_votes(image[None], [Key(0, index, Purpose.TUNING, iteration=1)], few).cpu()
        return (time.perf_counter() - began) / few

    def _sample(self) -> tuple[Tensor, Tensor, list[int]]:
        """Images from all over the split, as some are sorted by class; those that can't be read are left out."""
        examples = list(readable(self.images, spread(len(self.images), _IMAGES)))
        if not examples:
            return torch.empty(0), torch.empty(0), []
        # Shuffled, since a slow model sees only the first few.
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0)).tolist()
        examples = [examples[place] for place in order]
        indices = [index for index, _ in examples]
        x = torch.stack([image for _, image in examples]).to(self.classifier.device)
        return x, torch.tensor([self.images.label(index) for index in indices], device=x.device), indices
