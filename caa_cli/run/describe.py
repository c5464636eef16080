"""What a run says of itself before it begins: rows for the display."""

from __future__ import annotations

from caa_cli.display import Rows
from caa_cli.names import VOTES
from caa_cli.plan import AttackPlan
from caa_cli.run.build import build_attack, most_search_evaluations, samples_a_step
from caa_cli.verify import Verifier

# What the search of an image takes on smoothed MNIST models, as a share of the most that it can take; attacks
# that are not named take all of their steps. And how many proofs an image takes (docs/verification.md).
TYPICAL_SHARE = {"caa": 0.25, "pgd": 0.4, "deepfool": 0.2, "autoattack": 0.5}
TYPICAL_TRIES = 1.25


def attack_rows(plan: AttackPlan, num_classes: int) -> Rows:
    """What is about to run; `plan` is the resolved one."""
    steps, (fewest, most) = build_attack(plan).iterations, samples_a_step(plan)
    samples = str(most) if fewest == most else f"{fewest} to {most}"
    rows = [
        ("attack", f"{plan.attack}: {samples} samples a step, at most {steps} steps, seed {plan.seed}"),
        (
            "proof",
            f"{plan.verification_draws} fresh samples a try; certified radius on {plan.certification_draws}",
        ),
        ("results", str(plan.output)),
    ]
    if plan.attack_sigma not in (None, plan.sigma):
        rows.insert(1, ("attacker", f"takes σ to be {plan.attack_sigma:g}; certificate and proof are at the true σ"))
    if plan.gradient == VOTES:
        rows.insert(1, ("gradients", "none: votes alone, from the side of other images"))
    elif plan.surrogate_model is not None:
        rows.insert(1, ("gradients", f"of {plan.surrogate_model}; votes are the target's"))
    if plan.attack == "autoattack" and num_classes < 3:
        rows.insert(1, ("two classes", "APGD on the cross-entropy alone: the logit ratio needs a third"))
    return rows


def most_evaluations(plan: AttackPlan, images: int) -> dict[str, int]:
    """The most model evaluations that a run can take, forward and backward, in chunks of 128 samples or more."""
    forward, backward = _evaluations(plan, 1.0, Verifier().tries)
    return {
        "forward_evaluations_at_most": int(images * forward),
        "backward_evaluations_at_most": int(images * backward),
    }


def estimate(plan: AttackPlan, images: int) -> Rows:
    share = TYPICAL_SHARE.get(plan.attack, 1.0)
    if plan.attack == "caa" and build_attack(plan).iterations > plan.iterations:
        share /= 2  # most of the runs after the first are given up early
    usual = _evaluations(plan, share, TYPICAL_TRIES)
    return [
        (name.removesuffix("_at_most").replace("_", " "), f"{most:,} · {images * typical:,.0f}")
        for (name, most), typical in zip(most_evaluations(plan, images).items(), usual, strict=True)
    ]


def _evaluations(plan: AttackPlan, share: float, tries: float) -> tuple[float, float]:
    """(forward, backward) of one image, certificate and proof included, for this share of the search."""
    forward, backward = most_search_evaluations(plan)
    clean = plan.selection_draws + plan.certification_draws
    proof = tries * plan.verification_draws + Verifier().probes * plan.selection_draws
    return clean + share * forward + proof, share * backward
