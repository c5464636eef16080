"""The smallest ball in which APGD finds an adversarial point, on the cross-entropy or towards one of many classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines.apgd_search import ApgdSearch, SearchState
from caa_cli.attacks.baselines.baseline import Evaluation
from caa_cli.attacks.common.state import Example
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.logit_ratio import TargetedRatio
from caa_cli.smoothing.objective import CrossEntropy, likeliest_rivals, odds_against


@dataclass
class ApgdMinState(SearchState):
    """likely: (examples, T) the likeliest classes other than the label, once a point has been evaluated."""

    likely: Tensor


@dataclass(frozen=True)
class ApgdMin(settings.ApgdMin, ApgdSearch[ApgdMinState]):
    """APGD (Croce and Hein, 2020) minimised: a search is a run on the cross-entropy and, until one succeeds, one on
    the targeted difference-of-logits ratio for each of the `targets` likeliest classes; the radius of its ball is
    doubled until a search succeeds, then bisected, between the certified radius and the last success.

    The likeliest classes are those of the first point that is evaluated.
    """

    TYPICAL_SHARE = 0.4

    @property
    def most_runs(self) -> int:
        return 1 + self.targets

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> ApgdMinState:
        state = self.first_run(examples, classifier)
        certified = torch.tensor([example.certified_radius for example in examples])
        state.lower = torch.minimum(certified, state.epsilon)
        count = max(self.runs(classifier.num_classes) - 1, 1)
        likely = torch.zeros((len(examples), count), dtype=torch.int64, device=state.x.device)
        return ApgdMinState(**vars(state), likely=likely)

    def climb(self, state: ApgdMinState, classifier: SmoothedClassifier) -> tuple[Evaluation, Tensor]:
        rank = state.on_device((state.run - 1).clamp(min=0))
        ratio = TargetedRatio(state.likely.gather(1, rank[:, None])[:, 0])
        evaluation = self.evaluate_by_run(state, classifier, CrossEntropy(), ratio)
        z, labels = evaluation.log_mean, state.labels
        first = state.iteration == 0
        if bool(first.any()):
            order = likeliest_rivals(z, labels, state.likely.shape[1])
            state.likely = torch.where(state.on_device(first)[:, None], order, state.likely)
        return evaluation, self.by_run(state, odds_against(z, labels), lambda: ratio.value(z, labels))
