"""The attacks: a row of `ATTACKS` each. Nothing else in the package lists them."""

from __future__ import annotations

from dataclasses import dataclass

from caa_cli.config import hyperparameters as settings
from caa_cli.config.settings import Settings

# Noise samples per step, of an attack that has no default of its own.
SAMPLES = 1500


@dataclass(frozen=True)
class AttackSpec:
    """settings: a dataclass.  runs: `module:class` of the attack, with the classmethod `of` (see `Attack`).

    by_votes: the class for --gradient votes, where the attack can begin on the far side of the boundary.
    samples: the default of --samples, but with --gradient votes, which takes SAMPLES.
    takes_target: whether it can be after one class (--target).
    """

    settings: type[Settings]
    runs: str
    by_votes: str | None = None
    samples: int = SAMPLES
    takes_target: bool = False


ATTACKS: dict[str, AttackSpec] = {
    "caa": AttackSpec(
        settings.Caa,
        "caa_cli.attacks.caa.attack:CertificationAware",
        "caa_cli.attacks.caa.attack:CertificationAware",
        takes_target=True,
    ),
    "caa-newton": AttackSpec(
        settings.CaaNewton,
        "caa_cli.attacks.newton.attack:Newton",
        "caa_cli.attacks.newton.boundary_walk:BoundaryWalk",
        # Two fifths fewer evaluations in all, for 0.2 to 0.5% of the radius (docs/method/caa-newton.md).
        samples=375,
        takes_target=True,
    ),
    "pgd": AttackSpec(settings.Pgd, "caa_cli.attacks.baselines.pgd:Pgd", takes_target=True),
    "cw": AttackSpec(settings.Cw, "caa_cli.attacks.baselines.cw:CarliniWagner", takes_target=True),
    "deepfool": AttackSpec(settings.DeepFool, "caa_cli.attacks.baselines.deepfool:DeepFool"),
    "autoattack": AttackSpec(
        settings.AutoAttack, "caa_cli.attacks.baselines.autoattack:AutoAttack", takes_target=True
    ),
    "ddn": AttackSpec(settings.Ddn, "caa_cli.attacks.baselines.ddn:Ddn", takes_target=True),
    "fmn": AttackSpec(settings.Fmn, "caa_cli.attacks.baselines.fmn:Fmn", takes_target=True),
    "alma": AttackSpec(settings.Alma, "caa_cli.attacks.baselines.alma:Alma", takes_target=True),
    "pdgd": AttackSpec(settings.Pdgd, "caa_cli.attacks.baselines.pdgd:Pdgd"),
    "sdf": AttackSpec(settings.Sdf, "caa_cli.attacks.baselines.sdf:Sdf"),
    "apgd-min": AttackSpec(settings.ApgdMin, "caa_cli.attacks.baselines.apgd_min:ApgdMin"),
}
