"""Which class each image's attack is after (`--target`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.targets import (
    LEAST_LIKELY,
    RANDOM,
    SECOND,
    TARGET_RULES,
    Classes,
    check_covers,
    random_class,
    read_targets,
)
from caa_cli.data.images import Images
from caa_cli.errors import UsageError
from caa_cli.smoothing.certify import Certificate
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import PILOT
from caa_cli.smoothing.gradients import mean_softmax
from caa_cli.smoothing.noise import Key, Purpose


@dataclass(frozen=True)
class Targets:
    """The rule by which an image has its target: at most one of the three; without any, attacks are untargeted.

    rule: of TARGET_RULES.  fixed: one class for all.  listed: a class by image.  seed: of `random` and of the noise
    that `second` and `least-likely` are found on.
    """

    rule: str | None = None
    fixed: int | None = None
    listed: Mapping[int, int] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def of(cls, plan: AttackPlan, size: int, classes: Classes) -> Self:
        """The targets that a resolved plan names, for a split of `size` images. Raises UsageError."""
        if plan.target_file is not None:
            return cls(listed=read_targets(plan.target_file, size, classes), seed=plan.seed)
        if plan.target is None or plan.target in TARGET_RULES:
            return cls(rule=plan.target, seed=plan.seed)
        return cls(fixed=classes.number_of("--target", plan.target), seed=plan.seed)

    def check(self, plan: AttackPlan, images: Images, indices: Sequence[int]) -> None:
        """Raises UsageError where an image has no target, or every one of them is of its target's class already."""
        if plan.target_file is not None:
            check_covers(plan.target_file, self.listed, indices)
        if indices and all(self.fixed_for(index) == images.label(index) for index in indices):
            raise UsageError(
                "--target: every image is of its target's class already",
                "name another class, or select other images with --indices, --skip or --every",
            )

    def fixed_for(self, index: int) -> int | None:
        """The class that was named for an image, whatever its label."""
        return self.listed.get(index, self.fixed)

    def before(self, index: int, label: int, classes: int) -> int | None:
        """The target if it is known without the model; None where `among` chooses it, or there is none."""
        if self.rule == RANDOM:
            return random_class(self.seed, index, label, classes)
        return self.fixed_for(index)

    @property
    def ranks(self) -> bool:
        """Whether the model has to say which class is the target."""
        return self.rule in (SECOND, LEAST_LIKELY)

    def evaluations(self) -> int:
        """Model evaluations that the choice of an image's target takes."""
        return PILOT if self.ranks else 0

    def among(self, clean: Certificate, image: Tensor, index: int, label: int, classifier: SmoothedClassifier) -> int:
        """The class but the label with the most of the certificate's votes, or with the fewest.

        The mean softmax of a short evaluation counts as one more vote, so that classes without votes have an order.
        """
        key = Key(self.seed, index, Purpose.TARGET)
        softmax = mean_softmax(classifier, classifier.model, image[None], [key], PILOT)[0].exp().double().cpu()
        likely = softmax + torch.from_numpy(clean.votes)
        if self.rule == SECOND:
            likely[label] = -1.0
            return int(likely.argmax())
        likely[label] = float("inf")
        return int(likely.argmin())
