"""AutoAttack for models with randomness: APGD on the cross-entropy, then on the difference-of-logits ratio."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from caa_cli.attacks.baselines.apgd_search import ApgdSearch, SearchState
from caa_cli.attacks.baselines.baseline import Evaluation
from caa_cli.attacks.common.state import Example
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.logit_ratio import LogitRatio
from caa_cli.smoothing.objective import CrossEntropy, Reversed, odds_against


@dataclass(frozen=True)
class AutoAttack(settings.AutoAttack, ApgdSearch[SearchState]):
    """The `rand` version of Croce and Hein (2020): a search is a run of APGD-CE of `steps` points, and if that finds
    nothing, one of APGD-DLR. The radius is the paper's unless it is given.

    The ratio needs three classes, and with targets four: with fewer there is the first run only.
    """

    @property
    def most_runs(self) -> int:
        return 2

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> SearchState:
        return self.first_run(examples, classifier)

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        if num_classes == 3:
            return [("three classes", "with --target, APGD on the cross-entropy alone: the ratio needs a fourth")]
        return super().notes(num_classes)

    def climb(self, state: SearchState, classifier: SmoothedClassifier) -> tuple[Evaluation, Tensor]:
        aim = state.aim
        # The ratio falls towards the boundary, and the cross-entropy grows.
        entropy, ratio = aim.objective(CrossEntropy()), LogitRatio(reach=aim.targeted)
        evaluation = self.evaluate_by_run(state, classifier, entropy, Reversed(ratio))
        z, odds = evaluation.log_mean, odds_against(evaluation.log_mean, aim.classes)
        odds = -odds if aim.targeted else odds
        return evaluation, self.by_run(state, odds, lambda: -ratio.value(z, aim.classes))
