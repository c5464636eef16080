"""Which other classes an attack follows, where it follows given ones, and which of them it gives up.

Which class has the nearest boundary can't be told from the clean image. So runs after several of them race each
other, and one whose boundary turns out to be too much further away than the nearest one's is given up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from caa_cli.attacks.loop import Batch, Example
from caa_cli.config import attacks as settings
from caa_cli.config.bounds import GOODMAN
from caa_cli.config.settings import Settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose

# From which share of the steps on at most how many runs may go on, however close their boundaries are to each other.
_FIELD = ((0.2, 3), (0.5, 2))
# How much further than the nearest boundary a run's own may seem to be before the run is given up: at the first of
# these shares of the steps, and ten times less with every further half of the steps.
_LEAD = 0.25
# Samples of a look are a first share up to the first of these shares of the steps, a second one up to the second, and
# then grow from a third to a fourth.
_SAMPLES_UNTIL = (0.3, 0.5)
# What is known of the slope of h before any votes, and how many samples that knowledge weighs.
_SLOPE, _SLOPE_WEIGHT = 0.75, 200.0
_SLOPES = (0.3, 1.0)


@dataclass
class Runs(Batch):
    """One run for each of R rivals of each example: tensors (examples, R, …).

    rivals: the classes.  alive: whether a run goes on.  point: where it looks next, flat.  size: how far away its
    boundary seems to be, inf before that is known.  slope, slope_weight: of h along the direction that the run
    follows, and the samples behind that.
    """

    rivals: Tensor
    alive: Tensor
    point: Tensor
    size: Tensor
    slope: Tensor
    slope_weight: Tensor

    @staticmethod
    def nothing_known(like: Tensor) -> dict[str, Tensor]:
        """`size`, `slope` and `slope_weight` of new runs; like: (examples, R)."""
        return {
            "size": torch.full_like(like, torch.inf),
            "slope": torch.full_like(like, _SLOPE),
            "slope_weight": torch.full_like(like, _SLOPE_WEIGHT),
        }

    def offer(self, rows: Tensor, runs: Tensor, votes: Tensor, confident: Tensor, guess: Tensor) -> None:
        """Remembers the points of these runs that looked adversarial, and those that are a guess for the finish."""
        for run in range(self.rivals.shape[1]):
            chosen = (runs == run) & (guess | confident)
            self.x[rows[chosen]] = self.point[rows[chosen], run].view(-1, *self.clean.shape[1:])
            self.remember(rows[chosen], votes[chosen], confident[chosen])

    def learn_slope(
        self, rows: Tensor, runs: Tensor, seen: Tensor, samples: int, telling: Tensor, most: float
    ) -> None:
        """Pools the slopes that looks of so many samples saw, where they tell anything; all weigh at most `most`."""
        slope, weight = self.slope[rows, runs], self.slope_weight[rows, runs]
        pooled = ((slope * weight + seen * samples) / (weight + samples)).clamp(*_SLOPES)
        self.slope[rows, runs] = torch.where(telling, pooled, slope)
        self.slope_weight[rows, runs] = torch.where(telling, (weight + samples).clamp(max=most), weight)


@dataclass(frozen=True)
class Race(settings.CaaNewton):
    """The settings of attacks whose runs race each other.

    steps: of one run. rivals: how many classes race at first. memory: what earlier looks weigh after each step,
    against 1. target: the margin to aim at, in pixel units at σ = 1. samples: what the other attacks take a step.
    """

    # Samples of a look, as shares of `samples`; see `draws`.
    SHARES: ClassVar[tuple[float, float, float, float]]

    samples: int = 1500
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0
    target: float = 0.06

    @classmethod
    def of(cls, settings: Settings, iterations: int, **run: Any) -> Self:
        """The attack with these settings, and of no more steps than --iterations allows."""
        attack = cls(**run, **vars(settings))
        return replace(attack, steps=min(attack.steps, iterations))

    @property
    def iterations(self) -> int:
        return self.steps

    def draws(self, iteration: int) -> int:
        """The samples of one look at this step, more towards the end."""
        few, more = (round(share * self.steps) for share in _SAMPLES_UNTIL)
        if iteration < more:
            share = self.SHARES[0] if iteration < few else self.SHARES[1]
        else:
            way = (iteration - more) / max(1, self.steps - 1 - more)
            share = self.SHARES[2] * (self.SHARES[3] / self.SHARES[2]) ** way
        return max(1, round(self.samples * share))

    def most_draws(self) -> int:
        """The samples of all looks at an image, if no run is given up before it has to be."""
        return sum(most_runs(step, self.steps, self.rivals) * self.draws(step) for step in range(self.steps))


def _first(share: float, steps: int) -> int:
    """The step from which on something holds. All rivals are looked at once."""
    return max(1, round(share * steps))


def most_runs(step: int, steps: int, rivals: int) -> int:
    """How many of an image's runs may go on at this step."""
    return min([rivals, *(most for share, most in _FIELD if step >= _first(share, steps))])


def still_racing(alive: Tensor, size: Tensor, iteration: Tensor, steps: int, rivals: int) -> Tensor:
    """Which runs go on: all but those too far behind and those beyond the most that may.

    alive: (examples, R) bool.  size: (examples, R) how far away each boundary seems to be, inf before that is known.
    iteration: (examples,) the step that each example is about to take, of `steps`.
    """
    # Of runs whose distance is not known the first goes on; ended ones rank behind all.
    size = torch.where(alive, size.clamp(max=torch.finfo(size.dtype).max), torch.inf)
    rank = size.argsort(dim=1, stable=True).argsort(dim=1)
    going = alive.clone()
    nearest = size.amin(dim=1, keepdim=True)
    for step in iteration.unique().tolist():
        over = rank >= most_runs(step, steps, rivals)
        if step >= _first(_FIELD[0][0], steps):
            lead = _LEAD * 100.0 ** -max(0.0, step / steps - _FIELD[0][0])
            over |= (size > nearest * (1.0 + lead)) & (rank > 0)
        going &= ~over | (iteration != step)[:, None]
    return going


def look_at(samples: int) -> int:
    """How many samples `likeliest` takes of an image, all forward, where a step takes `samples`."""
    return min(samples, SmoothedClassifier.PILOT)


def likeliest(examples: list[Example], classifier: SmoothedClassifier, count: int, seed: int, samples: int) -> Tensor:
    """The `count` likeliest classes but the label, likeliest first, by the mean softmax of a short look at the clean
    images: (examples, count) int64, or (examples, classes − 1) where there are no more."""
    clean = torch.stack([example.image for example in examples])
    labels = torch.tensor([example.label for example in examples], device=clean.device)
    keys = [Key(seed, example.index, Purpose.START) for example in examples]
    log_mean = classifier.log_mean(clean, keys, look_at(samples))
    others = log_mean.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, classifier.num_classes - 1), dim=1).indices
