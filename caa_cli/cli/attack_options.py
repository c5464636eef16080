"""The options that belong to one attack, a panel an attack. Unset ones are None until the plan fills them in."""

from __future__ import annotations

from typing import Annotated, Any

from caa_cli import checks
from caa_cli.attack_settings import ATTACK_SETTINGS
from caa_cli.cli.options import option
from caa_cli.names import REFINEMENTS, SAMPLE_SCHEDULES, SURROGATES


def _panel(attack: str) -> str:
    return f"Only with --attack {attack}"


def _own(name: str, help: str, default: str | None = None, **settings: Any) -> Any:
    """An option with the help text's default taken from the attack's settings."""
    attack = next(attack for attack, own in ATTACK_SETTINGS.items() if name in own)
    value = ATTACK_SETTINGS[attack][name]
    shown = default or (value if isinstance(value, str) else f"{value:.4g}")
    return option(checks.flag(name), help=help, show_default=shown, panel=_panel(attack), **settings)


Overshoot = Annotated[float | None, _own("overshoot", "The paper's 1 + δ₁.")]
Undershoot = Annotated[float | None, _own("undershoot", "The paper's 1 − δ₂.")]
StepMin = Annotated[float | None, _own("step_min", "Shortest step.")]
StepMax = Annotated[float | None, _own("step_max", "Longest step.")]
Patience = Annotated[int | None, _own("patience", "Steps without gain before an image stops; 0: never.")]
Tolerance = Annotated[float | None, _own("tolerance", "The share of the radius that counts as a gain.")]
SampleSchedule = Annotated[
    str | None,
    _own(
        "sample_schedule",
        f"{' or '.join(SAMPLE_SCHEDULES)}: a sixth of --samples a step, a third where the class is open; or all.",
        metavar="NAME",
    ),
]
Refine = Annotated[
    str | None,
    _own(
        "refine",
        f"{REFINEMENTS[0]}: on the ray to the clean image, as the paper; {REFINEMENTS[1]}: along the boundary too.",
        metavar="NAME",
    ),
]
Rivals = Annotated[
    int | None,
    _own("rivals", "Runs, each after one of the likeliest other classes; 1: one, after whichever leads."),
]
Surrogate = Annotated[
    str | None,
    _own("surrogate", f"Whose gradient is followed: {' or '.join(SURROGATES)} (the paper's).", metavar="NAME"),
]
Temperature = Annotated[float | None, _own("temperature", "Temperature of --surrogate gumbel.")]

NewtonRivals = Annotated[int | None, _own("newton_rivals", "Likeliest other classes to follow at first.")]
NewtonSteps = Annotated[int | None, _own("newton_steps", "Steps, if --iterations allows as many.")]
NewtonMemory = Annotated[float | None, _own("newton_memory", "What the planes so far weigh after a step, against 1.")]

PgdEpsilon = Annotated[float | None, _own("pgd_epsilon", "Length of a step.", "20/255")]

CwConstant = Annotated[
    float | None, _own("cw_constant", "A fixed c (the paper's: 1e-4); --iterations steps.", "searched for")
]
CwInitialConstant = Annotated[float | None, _own("cw_initial_constant", "The c that the search begins with.")]
CwBinarySearchSteps = Annotated[
    int | None, _own("cw_binary_search_steps", "Values of c to try, --iterations steps each.")
]
CwLearningRate = Annotated[
    float | None, _own("cw_learning_rate", "Of Adam (the paper's: 0.01).", "10/iterations, at least 0.01")
]
CwConfidence = Annotated[float | None, _own("cw_confidence", "κ, the margin to reach.")]

DeepfoolOvershoot = Annotated[float | None, _own("deepfool_overshoot", "Share added to the sum of the steps.")]
DeepfoolCandidates = Annotated[
    int | None, _own("deepfool_candidates", "Likeliest classes to choose from, the label among them.")
]

AutoattackRadius = Annotated[
    float | None,
    _own("autoattack_radius", "Of the ball.", "5 × certified radius, at least 0.1"),
]
AutoattackMinimise = Annotated[
    bool | None,
    option(
        "--autoattack-minimise",
        help="Search for the smallest radius: double until success, then bisect.",
        panel=_panel("autoattack"),
    ),
]
AutoattackSearches = Annotated[int | None, _own("autoattack_searches", "Radii that --autoattack-minimise tries.")]
AutoattackRho = Annotated[
    float | None, _own("autoattack_rho", "APGD's ρ: the share of steps that have to gain for it to keep its step.")
]

DdnInitialNorm = Annotated[float | None, _own("ddn_initial_norm", "First length of the perturbation.")]
DdnGamma = Annotated[float | None, _own("ddn_gamma", "Share by which the length changes each step.")]

FmnAlphaInit = Annotated[float | None, _own("fmn_alpha_init", "First step size.")]
FmnAlphaFinal = Annotated[float | None, _own("fmn_alpha_final", "Last step size.")]
FmnGammaInit = Annotated[float | None, _own("fmn_gamma_init", "First share by which the radius changes.")]
FmnGammaFinal = Annotated[float | None, _own("fmn_gamma_final", "Last share by which the radius changes.")]

AlmaInitLrDistance = Annotated[float | None, _own("alma_init_lr_distance", "How far the first step goes.")]
AlmaLrReduction = Annotated[float | None, _own("alma_lr_reduction", "Share of the learning rate left at the end.")]
AlmaAlpha = Annotated[
    float | None, _own("alma_alpha", "Weight of the moving averages.", "0.9 from 500 iterations on, else 0.5")
]
AlmaMuInit = Annotated[float | None, _own("alma_mu_init", "First multiplier μ of the penalty.")]
AlmaRhoInit = Annotated[float | None, _own("alma_rho_init", "First weight ρ of the penalty.")]
AlmaCheckSteps = Annotated[int | None, _own("alma_check_steps", "Steps between checks of the constraint.")]
AlmaTau = Annotated[float | None, _own("alma_tau", "The constraint has gained if it fell below this share.")]
AlmaGamma = Annotated[float | None, _own("alma_gamma", "What ρ is multiplied by where it has not.")]
AlmaLogitTolerance = Annotated[float | None, _own("alma_logit_tolerance", "Added to the margin.")]
