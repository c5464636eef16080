"""The rows that a run shows before it begins, and how many evaluations it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.choices import ENSEMBLES, EXACT, VOTES
from caa_cli.config.compared_settings import default_of
from caa_cli.config.presets import PRESETS, preset_of_attack
from caa_cli.config.ranges import flag
from caa_cli.config.targets import TARGET_RULES, Classes, target_in_words
from caa_cli.display import Rows
from caa_cli.models.base_classifier import BaseClassifier
from caa_cli.run.dry_run import Evaluations
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.verification.rules import RULES


def attack_rows(plan: AttackPlan, attack: Attack[Any], classes: Classes) -> Rows:
    """The rows of an attack before it runs; `plan` is the resolved one."""
    searches = f", the nearest of {plan.restarts} searches" if plan.restarts > 1 else ""
    rows = [("attack", f"{plan.attack}: {attack.in_words()}{searches}, seed {plan.seed}")]
    if plan.preset is not None:
        rows.append(("preset", _preset(plan)))
    if plan.gradient == VOTES:
        rows.append(("gradients", "none: votes alone, from the side of other images"))
    elif plan.surrogate_model is not None:
        rows.append(("gradients", f"of {plan.surrogate_model}; votes are the target's"))
    if plan.targeted:
        rows.append(("target", _target(plan, classes)))
    rows += attack.notes(classes.count)
    if plan.attack_sigma not in (None, plan.sigma):
        rows.append(("attacker", f"takes σ to be {plan.attack_sigma:g}; certificate and verification use the true σ"))
    if plan.search_dtype != plan.dtype:
        rows.append(("search", f"in {plan.search_dtype}; certificate and verification in {plan.dtype}"))
    samples = f"{'at most ' if plan.verification == EXACT else ''}{plan.verify_samples} fresh samples per try"
    fresh = f"{plan.verification}, {samples}; certified radius on {plan.certify_samples}"
    return [*rows, ("verification", fresh), ("results", str(plan.output))]


def _preset(plan: AttackPlan) -> str:
    """The preset with what it changed of the defaults, and what the user gave in its place, as options."""
    config, preset = plan.config(), preset_of_attack(plan.preset, plan.attack)
    changed = [name for name, value in preset.items() if config[name] == value != default_of(plan.attack, name)]
    given = [name for name, value in preset.items() if config[name] != value]
    options, instead = (" ".join(f"{flag(name)} {config[name]}" for name in names) for names in (changed, given))
    words = f"{plan.preset} ({PRESETS[str(plan.preset)].source}): {options or 'the defaults'}"
    return f"{words}; as given: {instead}" if given else words


def base_classifier_rows(base: BaseClassifier, checkpoints: Sequence[str]) -> Rows:
    """The files that the model is made of, in the order that an image goes through them.

    checkpoints: of the members, as the user names them.
    """
    rows = []
    if base.denoiser is not None:
        rows.append(("denoiser", _from(base.denoiser.arch, base.denoiser.path, base.denoiser.sha256)))
    if base.expected_sigma is not None:
        step = f"for σ = {base.expected_sigma:.4g}; the noise, and so the certificates, have σ = {base.card.sigma:g}"
        rows.append(("step", step))
    for number, (member, path) in enumerate(zip(base.members, checkpoints, strict=True), 1):
        name = "model" if base.ensemble is None else f"model {number}"
        rows.append((name, _from(member.card.arch, path, member.weights.sha256)))
        if (size := member.card.input_shape[1:]) != base.card.input_shape[1:]:
            rows[-1] = (name, f"{rows[-1][1]}, on images resized to {size[0]}×{size[1]}")
    if base.ensemble is not None:
        rows.append(("ensemble", ENSEMBLES[base.ensemble]))
    return rows


def _from(arch: str, path: object, sha256: str) -> str:
    return f"{arch} from {path} (sha256 {sha256[:12]})"


def _target(plan: AttackPlan, classes: Classes) -> str:
    """The target in words."""
    words = target_in_words(str(plan.target), classes.shown)
    if plan.target_file is not None:
        return f"{words}: {plan.target_file}"
    return words if plan.target in TARGET_RULES else f"{words}; its own images are left out"


def evaluations(
    plan: AttackPlan,
    attack: Attack[Any],
    cost: GradientCost,
    images: int,
    num_classes: int,
    typical: bool = False,
    choice: int = 0,
) -> Evaluations | None:
    """The most model evaluations that a run can take, certificates and verification included, if no pilot has to be
    evaluated twice; None where only the attack's code knows. typical: the usual number on smoothed MNIST models.

    choice: evaluations per image for the choice of its target.
    """
    budget = attack.budget(num_classes, cost)
    if budget is None:
        return None
    forward, backward = budget
    share = attack.typical_share() if typical else 1.0
    clean = plan.selection_samples + plan.certify_samples + choice
    rule = RULES[plan.verification](plan.verify_samples, plan.alpha, plan.bound)
    verification = rule.evaluations(plan.selection_samples, typical)
    searches = images * plan.restarts * share
    return Evaluations(images * (clean + verification) + searches * forward, searches * backward, searches * forward)
