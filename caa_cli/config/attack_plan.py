"""What one run of `caa attack` will do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from caa_cli.config import attack_settings
from caa_cli.config.attack_settings import AttackName, samples_by_default
from caa_cli.config.attacks import ATTACKS, SAMPLES
from caa_cli.config.choices import (
    DTYPES,
    EXACT,
    FINISHES,
    GRADIENTS,
    INTERVALS,
    LINE_SEARCH,
    MODEL,
    SURROGATE_MODEL,
    VERIFICATIONS,
    VOTES,
)
from caa_cli.config.differences import AS_ANOTHER
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.presets import PRESETS
from caa_cli.config.ranges import MOST_STEPS, SAFETENSORS, SIGMA, Count, FileName, OneOf, Word
from caa_cli.config.settings import Called, Settings, Shown, Suggested, Takes
from caa_cli.config.targets import FORMS, TARGET_RULES, Classes, TargetText, file_digest
from caa_cli.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AttackPlan(ModelPlan):
    """One run of `caa attack`. Lengths are L2 in [0, 1] pixel units; sizes are counts of noise samples.

    name: of the attack in comparisons.  preset: replaces defaults.  settings, samples: None: the attack's defaults.
    attack_sigma: the σ that the search assumes; None: the true one.  gradient: the source of the search's gradients.
    search_dtype: the precision of the search; None: that of the run.  target: the class to reach, or the rule that
    chooses it; None: any but the label.  target_file: lists a class for each image.  selection_samples,
    certify_samples, verify_samples: None: see `default_samples`.
    """

    attack: Annotated[
        str,
        AttackName(),
        f"Which attack: {', '.join(ATTACKS)}; or one of yours: package.module:name, file.py:name.",
        Suggested(ATTACKS),
    ] = "caa"
    name: Annotated[
        str | None,
        Word(taken=ATTACKS),
        "What tables and pictures of caa compare call this attack.",
        Takes("NAME"),
    ] = None
    preset: Annotated[
        str | None,
        OneOf(PRESETS),
        f"Published settings, for options that are not given: {', '.join(PRESETS)}.",
        Shown("none"),
    ] = None
    settings: Settings = None  # type: ignore[assignment]  # filled in below
    samples: Annotated[
        int,
        Count(),
        "Noise samples per step; caa and caa-newton use fewer where that is enough.",
        Shown(f"{SAMPLES}; caa-newton by gradients: {samples_by_default('caa-newton')}"),
    ] = None  # type: ignore[assignment]  # filled in below
    iterations: Annotated[
        int,
        Count(most=MOST_STEPS),
        "Most steps of a search; of each round (cw, autoattack, apgd-min) or rival class (caa --rivals).",
    ] = 100
    restarts: Annotated[
        int, Count(most=1000), "Searches of each image, each on noise of its own; the nearest result is verified."
    ] = 1
    attack_sigma: Annotated[
        float | None,
        SIGMA,
        "Noise level that the search assumes; certificate and verification use the true σ.",
        Shown("the true σ"),
    ] = None
    gradient: Annotated[
        str,
        "Gradients for the search: the model's own, those of another checkpoint, or none (votes alone).",
        Takes("|".join((MODEL, f"{SURROGATE_MODEL}=FILE", VOTES))),
        Suggested((MODEL, f"{SURROGATE_MODEL}=", VOTES)),
    ] = MODEL
    target: Annotated[
        str | None,
        TargetText(),
        "Reach one class: a number or name; the second or least likely one, or a random one, of each image; "
        "or as a file lists them.",
        Takes(FORMS),
        Suggested(TARGET_RULES),
        Shown("any but the label"),
    ] = None
    target_file: Annotated[Path | None, Called("target"), FileName()] = None
    search_dtype: Annotated[
        str,
        OneOf(DTYPES),
        "Precision of the search alone, with a second copy of the weights; certificate, line search and "
        "verification keep --dtype.",
        Shown("as --dtype"),
    ] = None  # type: ignore[assignment]
    selection_samples: Annotated[
        int,
        Count(),
        "Samples to choose the clean class, and of each point of the line search.",
        Shown(f"as --samples, or {SAMPLES}"),
    ] = None  # type: ignore[assignment]
    certify_samples: Annotated[
        int, Count(), "Samples for the certified radius of the clean image.", Shown("as --verify-samples")
    ] = None  # type: ignore[assignment]
    verify_samples: Annotated[
        int,
        Count(),
        "Fresh samples, at most, of each try to verify an adversarial image.",
        Shown(f"10 × --samples, at least 10000, or {10 * SAMPLES}"),
    ] = None  # type: ignore[assignment]
    verification: Annotated[
        str,
        OneOf(VERIFICATIONS),
        f"{EXACT}: a sequential test of the two classes, which ends as soon as it is sure; {INTERVALS}: confidence "
        "intervals by --bound, as in the paper.",
    ] = EXACT
    finish: Annotated[
        str,
        OneOf(FINISHES),
        f"{FINISHES[0]}: after the search, shorten along the line to the clean image; {FINISHES[1]}: don't.",
    ] = LINE_SEARCH
    batch_size: Annotated[int | None, Count()] = None
    output: Annotated[Path, FileName(), "Where to write the result.", Takes("FILE.json")] = Path("attack.json")
    save_adversarial: Annotated[
        Path | None, SAFETENSORS, "Also save the adversarial images.", Takes("FILE.safetensors")
    ] = None
    figure: Annotated[
        Path | None, FileName(), "Draw a few images before and after (needs matplotlib).", Takes("FILE.png")
    ] = None

    NOT_COMPARED: ClassVar[frozenset[str]] = ModelPlan.NOT_COMPARED | {
        "name",
        "preset",
        "batch_size",
        "save_adversarial",
        "target_file",
    }
    WRITTEN = ("save_adversarial", *ModelPlan.WRITTEN)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The plan of values by users' names, the attack's settings among them (`ddn_gamma`); None: not given.

        Raises UsageError, also for a setting of another attack.
        """
        return super().of(**attack_settings.completed({"attack": cls.attack, **given}))

    def __post_init__(self) -> None:
        super().__post_init__()
        by_votes = self.gradient == VOTES
        self.fill_in(default_samples(vars(self)))
        self.fill_in({"samples": samples_by_default(self.attack, by_votes)})
        self.fill_in({name: getattr(self, other) for name, other in AS_ANOTHER.items()})
        self.fill_in({"settings": attack_settings.spec_of(self.attack).settings()})
        self._check_gradient()
        attack_settings.check(self.attack, self.settings, by_votes, self.targeted)

    @property
    def targeted(self) -> bool:
        """Whether one class of each image is to be reached, not any but the label."""
        return self.target is not None or self.target_file is not None

    def resolve(self, sigma: float | None, **from_checkpoint: Any) -> Self:
        """As `ModelPlan.resolve`; attack_sigma, too, is the checkpoint's σ unless it was given."""
        return super().resolve(sigma, attack_sigma=self.attack_sigma or sigma, **from_checkpoint)

    def with_classes(self, classes: Classes) -> Self:
        """`target` as results record it: a rule, the number of a class, or of a file of targets its digest."""
        if self.target_file is not None:
            return replace(self, target=file_digest(self.target_file))
        if self.target is None or self.target in TARGET_RULES:
            return self
        return replace(self, target=str(classes.number_of(f"--target {self.target}", self.target)))

    def flat_settings(self) -> dict[str, Any]:
        return attack_settings.flat(self.attack, self.settings)

    def compared_keys(self) -> list[str]:
        """As of every plan, with those of the attack last."""
        return sorted(super().compared_keys(), key=self.flat_settings().__contains__)

    @property
    def surrogate_model(self) -> str | None:
        """The checkpoint that --gradient surrogate-model=… names."""
        kind, equals, checkpoint = self.gradient.partition("=")
        return checkpoint if equals and kind == SURROGATE_MODEL else None

    def reads(self) -> list[tuple[str, Path | None]]:
        """As `ModelPlan.reads`, with the surrogate's checkpoint and the file of targets."""
        surrogate = self.surrogate_model
        gradient = None if surrogate in (None, "demo") else Path(str(surrogate))
        return [*super().reads(), ("--gradient", gradient), ("--target", self.target_file)]

    def _check_gradient(self) -> None:
        kind, equals, checkpoint = self.gradient.partition("=")
        if kind == SURROGATE_MODEL and not checkpoint:
            raise UsageError(
                f"--gradient {self.gradient} names no checkpoint", f"--gradient {SURROGATE_MODEL}=FILE, or {VOTES}"
            )
        if kind not in GRADIENTS or (equals and kind != SURROGATE_MODEL):
            raise UsageError(
                f"--gradient {self.gradient!r} is not known",
                f"use one of: {MODEL}, {SURROGATE_MODEL}=CHECKPOINT, {VOTES}",
            )
        if kind == VOTES and attack_settings.spec_of(self.attack).by_votes is None:
            able = [name for name, spec in ATTACKS.items() if spec.by_votes]
            raise UsageError(
                f"{self.attack} begins at the clean image, where votes alone show no direction (--gradient {VOTES})",
                f"use --attack {' or '.join(able)}, or --gradient {SURROGATE_MODEL}=CHECKPOINT",
            )


def default_samples(given: Mapping[str, Any]) -> dict[str, int]:
    """The sample counts of certificate and verification, by setting; those that are None follow from others. They are
    the same for every attack, unless --samples is given."""
    samples = SAMPLES if given["samples"] is None else given["samples"]
    counts = {"selection_samples": samples, "verify_samples": max(10 * samples, 10_000)}
    counts |= {name: given[name] for name in counts if given[name] is not None}
    certify = given["certify_samples"]
    return {**counts, "certify_samples": counts["verify_samples"] if certify is None else certify}
