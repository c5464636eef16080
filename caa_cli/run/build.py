"""The attack that a plan names, built from its settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caa_cli.attack_settings import prefix
from caa_cli.attacks.alma import Alma
from caa_cli.attacks.autoattack import AutoAttack
from caa_cli.attacks.caa import CertificationAware
from caa_cli.attacks.crossing import LOOK, LOOKS, MOST_OTHERS
from caa_cli.attacks.cw import CarliniWagner
from caa_cli.attacks.ddn import Ddn
from caa_cli.attacks.deepfool import DeepFool
from caa_cli.attacks.fmn import Fmn
from caa_cli.attacks.loop import Attack
from caa_cli.attacks.newton import Newton
from caa_cli.attacks.pgd import Pgd
from caa_cli.attacks.race import Race, look_at
from caa_cli.attacks.boundary_walk import Walk
from caa_cli.names import GUMBEL, TANGENTIAL, VOTES
from caa_cli.plan import AttackPlan
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import GumbelGap, LogRatio

# Their settings have the flags' names without the attack's in front.
BASELINES: dict[str, Callable[..., Attack]] = {
    "pgd": Pgd,
    "cw": CarliniWagner,
    "deepfool": DeepFool,
    "autoattack": AutoAttack,
    "ddn": Ddn,
    "fmn": Fmn,
    "alma": Alma,
}
# `alpha` is the error probability everywhere; ALMA's authors have another one.
_RENAMED = {"alma_alpha": "average"}


def build_attack(plan: AttackPlan) -> Attack:
    """Ready to run; it counts its steps and samples as the plan says."""
    common: dict[str, Any] = {"samples": plan.samples, "alpha": plan.alpha, "bound": plan.bound, "seed": plan.seed}
    settings = plan.attack_settings()
    if plan.attack == "caa":
        surrogate, temperature = settings.pop("surrogate"), settings.pop("temperature")
        objective = GumbelGap(temperature) if surrogate == GUMBEL else LogRatio()
        # --iterations is of a run.
        iterations = plan.iterations * settings["rivals"]
        return CertificationAware(iterations=iterations, objective=objective, **common, **settings)
    start = prefix(plan.attack)
    own = {_RENAMED.get(name, name.removeprefix(start)): value for name, value in settings.items()}
    if plan.attack == "caa-newton":
        own["steps"] = min(own["steps"], plan.iterations)
        return (Walk if plan.gradient == VOTES else Newton)(**common, **own)
    return BASELINES[plan.attack](steps=plan.iterations, **common, **own)


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
    return samples_a_step(plan)[0] * (plan.newton_rivals or 1)


def most_search_evaluations(plan: AttackPlan) -> tuple[int, int]:
    """The most that the search of one image can take: (forward, backward) model evaluations."""
    forward, backward = _most_of_the_target(plan)
    if plan.gradient == VOTES:
        return forward, 0
    if plan.surrogate_model:
        # A sample with gradients, one or several, is shown to the surrogate and to the target.
        forward += backward if plan.deepfool_candidates is None else plan.iterations * plan.samples
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
    if plan.deepfool_candidates is not None:
        # A backward pass for every rival, and a short look at the clean image to choose them by.
        look = min(plan.samples, SmoothedClassifier.PILOT)
        forward, backward = forward + look, backward * (plan.deepfool_candidates - 1) + look
    return forward, backward
