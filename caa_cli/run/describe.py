"""What a run says of itself before it begins: rows for the display."""

from __future__ import annotations

from caa_cli.display import Rows
from caa_cli.plan import AttackPlan
from caa_cli.run.build import build_attack, most_search_evaluations
from caa_cli.verify import Verifier

# What an image takes on smoothed MNIST models, as a share of the most that it can take (docs/attack.md); the attacks
# that are not named take all of their steps.
TYPICAL_SHARE = {"caa": 0.25, "pgd": 0.4, "deepfool": 0.2, "autoattack": 0.5}


def attack_rows(plan: AttackPlan, num_classes: int) -> Rows:
    """What is about to run; `plan` is the resolved one."""
    steps = build_attack(plan).iterations
    rows = [
        ("attack", f"{plan.attack}: {plan.samples} samples a step, at most {steps} steps, seed {plan.seed}"),
        (
            "proof",
            f"{plan.verification_draws} fresh samples a try; certified radius on {plan.certification_draws}",
        ),
        ("results", str(plan.output)),
    ]
    if plan.attack_sigma not in (None, plan.sigma):
        rows.insert(1, ("attacker", f"takes σ to be {plan.attack_sigma:g}; certificate and proof are at the true σ"))
    if plan.attack == "autoattack" and num_classes < 3:
        rows.insert(1, ("two classes", "APGD on the cross-entropy alone: the logit ratio needs a third"))
    return rows


def most_evaluations(plan: AttackPlan, images: int) -> dict[str, int]:
    """The most model evaluations that a run can take, forward and backward."""
    verifier = Verifier()
    forward, backward = most_search_evaluations(plan)
    proof = verifier.tries * plan.verification_draws + verifier.probes * plan.selection_draws
    clean = plan.selection_draws + plan.certification_draws
    return {
        "forward_evaluations_at_most": images * (clean + forward + proof),
        "backward_evaluations_at_most": images * backward,
    }


def estimate(plan: AttackPlan, images: int) -> Rows:
    share = TYPICAL_SHARE.get(plan.attack, 1.0)
    return [
        (name.removesuffix("_at_most").replace("_", " "), f"{most:,} · {share * most:,.0f}")
        for name, most in most_evaluations(plan, images).items()
    ]
