"""The attack of Carlini and Wagner (2017) in L2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import Baseline, delta
from caa_cli.attacks.common.state import Batch, Example, clean_images
from caa_cli.config import hyperparameters as settings
from caa_cli.config.choices import CLEAN_IMAGE
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import LogRatio


@dataclass
class CwState(Batch):
    """w: (examples, dimensions) the variables.  mean, square: Adam's averages of the gradient and its square.
    constant: this round's c, between `lower` and `upper`.
    succeeded: whether this round has found an adversarial point.
    """

    w: Tensor
    mean: Tensor
    square: Tensor
    constant: Tensor
    lower: Tensor
    upper: Tensor
    succeeded: Tensor


@dataclass(frozen=True)
class CarliniWagner(settings.Cw, Baseline[CwState]):
    """Minimises ‖δ‖² + c·max(m + κ, 0) with Adam over w, x = (tanh w + 1)/2, m the margin of the smoothed logits.

    confidence: κ.  c is searched for: from `initial_constant`, multiplied by ten until a round of `steps` steps
    finds an adversarial point, then bisected, `binary_search_steps` rounds in all. constant: a fixed c instead, and
    one round. learning_rate: of Adam; None: such that a round of any length travels as far as the authors' 1,000
    steps of 0.01, which black and white pixels need: they start at |w| ≈ 7, where tanh is flat. start_at: a round
    begins at the clean image, or at mid-grey (w = 0). The authors end a round early when its loss stagnates; noise
    would trigger that, so it is left out.
    """

    @property
    def iterations(self) -> int:
        return self.steps * (self.binary_search_steps if self.constant is None else 1)

    @property
    def rate(self) -> float:
        """Adam's learning rate."""
        return max(10.0 / self.steps, 0.01) if self.learning_rate is None else self.learning_rate

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> CwState:
        zeros = torch.zeros_like(clean_images(examples).flatten(1))
        size, device = len(examples), zeros.device
        first = self.initial_constant if self.constant is None else self.constant
        state = CwState.new(
            examples,
            classifier.num_classes,
            w=zeros,
            mean=zeros.clone(),
            square=zeros.clone(),
            constant=torch.full((size,), first, device=device),
            lower=torch.zeros(size, device=device),
            upper=torch.full((size,), torch.inf, device=device),
            succeeded=torch.zeros(size, dtype=torch.bool, device=device),
        )
        self._begin(state, torch.ones_like(state.succeeded))
        return state

    def step(self, state: CwState, classifier: SmoothedClassifier) -> None:
        evaluation = self.evaluate(state, classifier, state.aim.objective(LogRatio()))
        state.succeeded |= evaluation.adversarial
        idle = state.aim.margin(evaluation.log_mean) <= -self.confidence
        state.lost_gradients += evaluation.lost & ~idle
        weight = (state.constant * evaluation.norm).masked_fill_(idle | evaluation.lost, 0.0)
        in_pixels = 2.0 * delta(state) + weight[:, None] * evaluation.direction
        self._descend(state, in_pixels * (1.0 - torch.tanh(state.w).square()) / 2.0)
        # A round has a fixed number of steps, so the host knows which are over.
        ended = (state.iteration + 1) % self.steps == 0
        if bool(ended.any()):
            over = state.on_device(ended)
            self._search(state, over)
            self._begin(state, over)

    def _descend(self, state: CwState, gradient: Tensor) -> None:
        """One step of Adam, with its usual constants."""
        taken = state.iteration % self.steps + 1
        first, second = (state.on_device(1.0 - decay**taken)[:, None] for decay in (0.9, 0.999))
        state.mean = 0.9 * state.mean + 0.1 * gradient
        state.square = 0.999 * state.square + 0.001 * gradient.square()
        mean, square = state.mean / first, state.square / second
        state.w = state.w - self.rate * mean / (square.sqrt() + 1e-8)
        state.x = self._image(state)

    def _search(self, state: CwState, over: Tensor) -> None:
        """The next c of examples whose round is over."""
        state.upper = torch.where(over & state.succeeded, state.constant, state.upper)
        state.lower = torch.where(over & ~state.succeeded, state.constant, state.lower)
        bounded = torch.isfinite(state.upper)
        following = torch.where(bounded, (state.lower + state.upper) / 2.0, 10.0 * state.constant)
        state.constant = torch.where(over, following, state.constant)

    def _begin(self, state: CwState, rows: Tensor) -> None:
        """A new round for the examples of this mask."""
        # atanh of ±1 is infinite.
        share = 1.0 - 1e-6 if self.start_at == CLEAN_IMAGE else 0.0
        first = torch.atanh((2.0 * state.clean.flatten(1) - 1.0) * share)
        chosen = rows[:, None]
        state.w = torch.where(chosen, first, state.w)
        state.mean = torch.where(chosen, 0.0, state.mean)
        state.square = torch.where(chosen, 0.0, state.square)
        state.succeeded = state.succeeded & ~rows
        state.x = self._image(state)

    def _image(self, state: CwState) -> Tensor:
        """x as a function of w."""
        return ((torch.tanh(state.w) + 1.0) / 2.0).view_as(state.clean)
