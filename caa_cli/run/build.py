"""From the name of an attack in a plan to the attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caa_cli.attack_settings import prefix
from caa_cli.attacks.alma import Alma
from caa_cli.attacks.attack import Attack
from caa_cli.attacks.autoattack import AutoAttack
from caa_cli.attacks.boundary_walk import BoundaryWalk
from caa_cli.attacks.caa import CertificationAware
from caa_cli.attacks.cw import CarliniWagner
from caa_cli.attacks.ddn import Ddn
from caa_cli.attacks.deepfool import DeepFool
from caa_cli.attacks.fmn import Fmn
from caa_cli.attacks.newton import Newton
from caa_cli.attacks.pgd import Pgd
from caa_cli.names import GUMBEL, VOTES
from caa_cli.plan import AttackPlan
from caa_cli.smoothing.objective import GumbelGap, LogRatio

# Their settings have the flags' names without the attack's prefix.
BASELINES: dict[str, Callable[..., Attack[Any]]] = {
    "pgd": Pgd,
    "cw": CarliniWagner,
    "deepfool": DeepFool,
    "autoattack": AutoAttack,
    "ddn": Ddn,
    "fmn": Fmn,
    "alma": Alma,
}
# `alpha` is the error probability everywhere; the authors' are step sizes (FMN) and a weight of averages (ALMA).
_RENAMED = {
    "fmn_alpha_init": "step_size_init",
    "fmn_alpha_final": "step_size_final",
    "alma_alpha": "average",
}


def build_attack(plan: AttackPlan) -> Attack[Any]:
    """The attack that a plan names, with the plan's settings."""
    common: dict[str, Any] = {"samples": plan.samples, "alpha": plan.alpha, "bound": plan.bound, "seed": plan.seed}
    settings = plan.attack_settings()
    if plan.attack == "caa":
        surrogate, temperature = settings.pop("surrogate"), settings.pop("temperature")
        objective = GumbelGap(temperature) if surrogate == GUMBEL else LogRatio()
        # --iterations limits each run, that is each rival.
        iterations = plan.iterations * settings["rivals"]
        return CertificationAware(iterations=iterations, objective=objective, **common, **settings)
    start = prefix(plan.attack)
    settings = {_RENAMED.get(name, name.removeprefix(start)): value for name, value in settings.items()}
    if plan.attack == "caa-newton":
        settings["steps"] = min(settings["steps"], plan.iterations)
        return (BoundaryWalk if plan.gradient == VOTES else Newton)(**common, **settings)
    return BASELINES[plan.attack](steps=plan.iterations, **common, **settings)
