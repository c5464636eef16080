"""The attack that a plan names, built from its settings."""

from __future__ import annotations

from caa_cli.attacks.caa import CertificationAware
from caa_cli.attacks.crossing import LOOK, LOOKS, MOST_OTHERS
from caa_cli.attacks.deepfool import DeepFool
from caa_cli.attacks.loop import Attack
from caa_cli.attacks.newton import Newton
from caa_cli.attacks.rivals import Race, look_at
from caa_cli.attacks.walk import Walk
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.settings import load
from caa_cli.names import TANGENTIAL, VOTES
from caa_cli.plan import AttackPlan
from caa_cli.smoothing.classifier import SmoothedClassifier


def build_attack(plan: AttackPlan) -> Attack:
    """Ready to run; it counts its steps and samples as the plan says."""
    spec = ATTACKS[plan.attack]
    kind = load(spec.by_votes if spec.by_votes and plan.gradient == VOTES else spec.runs)
    attack: Attack = kind.of(
        plan.settings,
        plan.iterations,
        samples=plan.samples,
        alpha=plan.alpha,
        bound=plan.bound,
        seed=plan.seed,
    )
    return attack


def samples_a_step(plan: AttackPlan) -> tuple[int, int]:
    """The fewest and the most samples that are drawn of one point in a step."""
    attack = build_attack(plan)
    if isinstance(attack, Race):
        draws = [attack.draws(step) for step in range(attack.iterations)]
        return min(draws), max(draws)
    if isinstance(attack, CertificationAware):
        return attack.stages()[0], attack.stages()[-1]
    return plan.samples, plan.samples


def first_look(plan: AttackPlan) -> int:
    """The samples of an image that the first pass takes, all together."""
    attack = build_attack(plan)
    return samples_a_step(plan)[0] * (attack.rivals if isinstance(attack, Race) else 1)


def most_search_evaluations(plan: AttackPlan) -> tuple[int, int]:
    """The most that the search of one image can take: (forward, backward) model evaluations."""
    forward, backward = _most_of_the_target(plan)
    if plan.gradient == VOTES:
        return forward, 0
    if plan.surrogate_model:
        # A sample with gradients, one or several, is shown to the surrogate and to the target.
        one = isinstance(build_attack(plan), DeepFool)
        forward += plan.iterations * plan.samples if one else backward
    return forward, backward


def _most_of_the_target(plan: AttackPlan) -> tuple[int, int]:
    """As if every gradient were the target's own."""
    attack = build_attack(plan)
    if isinstance(attack, Walk):
        return attack.most_evaluations(MOST_OTHERS), 0
    if isinstance(attack, Newton):
        return attack.most_evaluations()
    if isinstance(attack, CertificationAware):
        first, last = samples_a_step(plan)
        begin = look_at(attack.samples) if attack.rivals > 1 else 0
        if plan.gradient == VOTES:
            begin = MOST_OTHERS * LOOK * (LOOKS + 1)
        # A step out of radial refinement evaluates its point twice: votes, then the gradient on the first of the
        # samples.
        forward = last if attack.refine == TANGENTIAL else first + last
        return begin + attack.iterations * forward, attack.iterations * first
    forward = backward = attack.iterations * plan.samples
    if isinstance(attack, DeepFool):
        # A backward pass for every rival, and a short look at the clean image to choose them by.
        look = min(plan.samples, SmoothedClassifier.PILOT)
        forward, backward = forward + look, backward * (attack.candidates - 1) + look
    return forward, backward
