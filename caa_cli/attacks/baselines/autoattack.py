"""AutoAttack for models with randomness: APGD on the cross-entropy, then on the difference-of-logits ratio."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines import apgd
from caa_cli.attacks.baselines.apgd import ApgdState
from caa_cli.attacks.baselines.baseline import Baseline
from caa_cli.attacks.common.state import Example
from caa_cli.config import attacks as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import CrossEntropy, LogitRatio, OneOfTwo, odds_against


@dataclass
class AutoAttackState(ApgdState):
    """second: whether the run is the one on the ratio.  succeeded: whether this search found an adversarial point.
    searched: searches ended.  lower, upper: the largest radius that failed and the smallest that succeeded.
    """

    second: Tensor
    succeeded: Tensor
    searched: Tensor
    lower: Tensor
    upper: Tensor


@dataclass(frozen=True)
class AutoAttack(settings.AutoAttack, Baseline[AutoAttackState]):
    """The `rand` version of Croce and Hein (2020): a search is a run of APGD-CE of `steps` points, and if that finds
    nothing, one of APGD-DLR. The loss of a point is that of the mean prediction over the noise of its step.

    radius: of the ball, L2; by default the paper's max(5 × certified radius, 0.1) of each image.
    minimise: doubles the radius until a search succeeds, then bisects, `searches` in all; a search then ends at its
    first adversarial point.  rho: the share of steps that have to raise the loss for APGD to keep its step size.

    The ratio needs three classes, and with targets four: with fewer there is the first run only.
    """

    TYPICAL_SHARE = 0.5

    @property
    def iterations(self) -> int:
        return 2 * self.steps * (self.searches if self.minimise else 1)

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        if num_classes >= 3:
            return []
        return [("two classes", "APGD on the cross-entropy alone: the logit ratio needs a third")]

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> AutoAttackState:
        size, device = len(examples), examples[0].image.device
        flat = torch.stack([example.image for example in examples]).flatten(1)
        radius = [self.radius or max(5.0 * example.certified_radius, 0.1) for example in examples]

        def each(value: float | int | bool) -> Tensor:
            return torch.full((size,), value, device=device)

        state = AutoAttackState.new(
            examples,
            classifier.num_classes,
            epsilon=torch.tensor(radius, device=device),
            step_size=each(0.0),
            taken=each(0),
            previous=flat,
            best=flat,
            best_direction=torch.zeros_like(flat),
            best_loss=each(-torch.inf),
            last_loss=each(-torch.inf),
            gains=each(0),
            loss_at_check=each(-torch.inf),
            halved_at_check=each(True),
            second=each(False),
            succeeded=each(False),
            searched=each(0),
            lower=each(0.0),
            upper=each(torch.inf),
        )
        self._begin(state, classifier, each(True))
        return state

    def step(self, state: AutoAttackState, classifier: SmoothedClassifier) -> None:
        aim, second = state.aim, state.second
        entropy, ratio = aim.objective(CrossEntropy()), LogitRatio(reach=aim.targeted)
        evaluation = self.evaluate(state, classifier, OneOfTwo(entropy, ratio, second))
        state.lost_gradients += ~evaluation.usable
        state.succeeded = state.succeeded | evaluation.adversarial
        # The ratio falls towards the boundary, and the cross-entropy grows.
        direction = torch.where(second[:, None], -evaluation.direction, evaluation.direction)
        z, odds = evaluation.log_mean, odds_against(evaluation.log_mean, aim.classes)
        loss = torch.where(second, -ratio.value(z, aim.classes), -odds if aim.targeted else odds)
        apgd.advance(state, loss, direction, self.steps, self.rho)
        self._end_runs(state, classifier)

    def _end_runs(self, state: AutoAttackState, classifier: SmoothedClassifier) -> None:
        """Begins the next run, or the next search, of examples whose run is over."""
        over = state.taken == self.steps
        if self.minimise:
            over = over | state.succeeded
        alone = classifier.num_classes < LogitRatio(reach=state.aim.targeted).least_classes
        last = state.second | state.succeeded | alone
        next_search, next_run = over & last, over & ~last
        state.searched = state.searched + next_search
        state.done |= next_search & (state.searched >= (self.searches if self.minimise else 1))
        state.upper = torch.where(next_search & state.succeeded, state.epsilon, state.upper)
        state.lower = torch.where(next_search & ~state.succeeded, state.epsilon, state.lower)
        bounded = torch.isfinite(state.upper)
        following = torch.where(bounded, (state.lower + state.upper) / 2.0, 2.0 * state.epsilon)
        state.epsilon = torch.where(next_search, following, state.epsilon)
        state.second = (state.second & ~next_search) | next_run
        state.succeeded = state.succeeded & ~next_search
        self._begin(state, classifier, over & ~state.done)

    def _begin(self, state: AutoAttackState, classifier: SmoothedClassifier, chosen: Tensor) -> None:
        """Begins new runs for the examples of this mask, each from another random start."""
        runs = torch.where(chosen, 2 * state.searched + state.second, -1).tolist()
        rows = [row for row, run in enumerate(runs) if run >= 0]
        if not rows:
            return
        keys = [Key(self.seed, int(state.indices[row]), Purpose.START, runs[row]) for row in rows]
        drawn = state.x.new_empty((len(rows), 1, *state.x.shape[1:]))
        classifier.noise.gaussian(drawn, keys, 0, 1.0)
        normals = torch.zeros_like(state.x)
        normals[state.on_device(torch.tensor(rows))] = drawn[:, 0]
        apgd.begin(state, chosen, normals.flatten(1))
