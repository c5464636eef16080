"""Searches of a ball by several runs of APGD, and for the smallest ball in which one succeeds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from caa_cli.attacks.baselines import apgd
from caa_cli.attacks.baselines.apgd import ApgdState
from caa_cli.attacks.baselines.baseline import Baseline, Evaluation
from caa_cli.attacks.common.state import Example, clean_images
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.noise import Purpose
from caa_cli.smoothing.objective import Objective, OneOfTwo


@dataclass
class SearchState(ApgdState):
    """run: which run of a search this is.  succeeded: whether this search found an adversarial point.
    searched: searches ended.  lower, upper: the largest radius that failed and the smallest that succeeded.
    All on the CPU: which runs begin is decided there.
    """

    run: Tensor
    succeeded: Tensor
    searched: Tensor
    lower: Tensor
    upper: Tensor


S = TypeVar("S", bound=SearchState)


@dataclass(frozen=True)
class ApgdSearch(Baseline[S]):
    """A search is up to `most_runs` runs of APGD of `steps` points each, one after the other until one succeeds. A
    point's loss is that of the mean prediction over the noise of its step.

    radius: of the first ball, L2; by default max(5 × certified radius, 0.1) of each image.
    minimise: doubles the radius until a search succeeds, then bisects, `searches` in all; a search then ends at its
    first adversarial point.  rho: the share of steps that have to raise the loss for APGD to keep its step size.
    """

    radius: float | None = None
    minimise: bool = True
    searches: int = 10
    rho: float = 0.75

    TYPICAL_SHARE = 0.5

    @property
    @abstractmethod
    def most_runs(self) -> int:
        """The runs of a search, the first one on the cross-entropy, where there are classes enough."""

    @abstractmethod
    def climb(self, state: S, classifier: SmoothedClassifier) -> tuple[Evaluation, Tensor]:
        """(the evaluation of x, with the direction uphill, the loss (examples,)) of each run."""

    def evaluate_by_run(
        self, state: S, classifier: SmoothedClassifier, first: Objective, later: Objective
    ) -> Evaluation:
        """The evaluation of x with gradients of `first` in the first run of a search, and of `later` in others."""
        further = state.run > 0
        if not bool(further.any()):
            return self.evaluate(state, classifier, first)
        return self.evaluate(state, classifier, OneOfTwo(first, later, state.on_device(further)))

    def by_run(self, state: S, first: Tensor, later: Callable[[], Tensor]) -> Tensor:
        """The values `first`, (examples,), in the first run of a search, and `later` in others."""
        further = state.run > 0
        return torch.where(state.on_device(further), later(), first) if bool(further.any()) else first

    @property
    def iterations(self) -> int:
        return self.most_runs * self.steps * (self.searches if self.minimise else 1)

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        steps = self.iterations // self.most_runs * self.runs(num_classes)
        return cost.evaluations(steps * self.samples)

    def runs(self, num_classes: int, targeted: bool = False) -> int:
        """The runs of a search; one where there are too few classes for the ratio of logits."""
        enough = num_classes >= LogitRatio(reach=targeted).least_classes
        return min(self.most_runs, num_classes) if enough else 1

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        if num_classes >= 3:
            return []
        return [("two classes", "APGD on the cross-entropy alone: the logit ratio needs a third")]

    def first_run(self, examples: list[Example], classifier: SmoothedClassifier) -> SearchState:
        """The state of new examples."""
        size, device = len(examples), examples[0].image.device
        flat = clean_images(examples).flatten(1)
        radius = [self.radius or max(5.0 * example.certified_radius, 0.1) for example in examples]

        def each(value: float | int | bool) -> Tensor:
            return torch.full((size,), value, device=device)

        def on_host(value: float | int | bool) -> Tensor:
            return torch.full((size,), value)

        state = SearchState.new(
            examples,
            classifier.num_classes,
            epsilon=torch.tensor(radius),
            step_size=each(0.0),
            taken=on_host(0),
            previous=flat,
            best=flat,
            best_direction=torch.zeros_like(flat),
            best_loss=each(-torch.inf),
            last_loss=each(-torch.inf),
            gains=each(0),
            loss_at_check=each(-torch.inf),
            halved_at_check=each(True),
            run=on_host(0),
            succeeded=on_host(False),
            searched=on_host(0),
            lower=on_host(0.0),
            upper=on_host(torch.inf),
        )
        self._begin(state, classifier, on_host(True))
        return state

    def step(self, state: S, classifier: SmoothedClassifier) -> None:
        evaluation, loss = self.climb(state, classifier)
        state.lost_gradients += evaluation.lost
        state.succeeded = state.succeeded | evaluation.adversarial.cpu()
        apgd.advance(state, loss, evaluation.direction, self.steps, self.rho)
        self._end_runs(state, classifier)

    def _end_runs(self, state: SearchState, classifier: SmoothedClassifier) -> None:
        """Begins the next run, or the next search, of examples whose run is over."""
        over = state.taken == self.steps
        if self.minimise:
            over = over | state.succeeded
        if not bool(over.any()):
            return
        last = state.succeeded | (state.run == self.runs(classifier.num_classes, state.aim.targeted) - 1)
        next_search, next_run = over & last, over & ~last
        state.searched = state.searched + next_search
        finished = next_search & (state.searched >= (self.searches if self.minimise else 1))
        state.done |= state.on_device(finished)
        state.upper = torch.where(next_search & state.succeeded, state.epsilon, state.upper)
        state.lower = torch.where(next_search & ~state.succeeded, state.epsilon, state.lower)
        bounded = torch.isfinite(state.upper)
        following = torch.where(bounded, (state.lower + state.upper) / 2.0, 2.0 * state.epsilon)
        state.epsilon = torch.where(next_search, following, state.epsilon)
        state.run = torch.where(next_search, 0, state.run + next_run)
        state.succeeded = state.succeeded & ~next_search
        self._begin(state, classifier, over & ~finished)

    def _begin(self, state: SearchState, classifier: SmoothedClassifier, chosen: Tensor) -> None:
        """Begins new runs for the examples of this mask, each from another random start."""
        rows = chosen.nonzero()[:, 0].tolist()
        if not rows:
            return
        runs = (self.most_runs * state.searched + state.run).tolist()
        keys = [
            replace(key, purpose=Purpose.START, iteration=runs[row])
            for row, key in zip(rows, state.keys(self.seed, rows), strict=True)
        ]
        drawn = state.x.new_empty((len(rows), 1, *state.x.shape[1:]))
        classifier.noise.gaussian(drawn, keys, 0, 1.0)
        normals = torch.zeros_like(state.x)
        normals[state.index(rows)] = drawn[:, 0]
        apgd.begin(state, chosen, normals.flatten(1))
