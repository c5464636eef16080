"""The settings of each attack: a dataclass each, with the range, the words and the default of every flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from caa_cli.config.certificates import CERTIFICATES
from caa_cli.config.choices import (
    CLEAN_IMAGE,
    CW_STARTS,
    FIXED,
    GUMBEL,
    LOG_RATIO,
    MID_GREY,
    RADIAL,
    REFINEMENTS,
    SAMPLE_SCHEDULES,
    STAGED,
    SURROGATES,
)
from caa_cli.config.ranges import MOST_STEPS, Between, Count, NotNegative, OneOf, Positive, Range
from caa_cli.config.settings import Called, Formerly, Settings, Shown
from caa_cli.errors import UsageError

# What multiplies, or is raised to a power with every round.
_FACTOR, _ROUNDS = Positive(100.0), Count(most=30)
_Rho = Annotated[
    float, Between(0, 1), "APGD halves its step if a smaller share of steps than this improves the loss (ρ)."
]


@dataclass(frozen=True, kw_only=True)
class Caa(Settings):
    """The certification-aware attack (the paper's)."""

    overshoot: Annotated[
        float,
        Range(1.0, 100.0, hint="below 1 a step would stay where no adversarial example can be"),
        "Step to the boundary, as a multiple of the certified length (the paper's 1 + δ₁).",
    ] = 1.05
    undershoot: Annotated[
        float, Range(0.0, 1.0, above=True), "The same for steps back to the clean image (the paper's 1 − δ₂)."
    ] = 0.95
    step_min: Annotated[float, Positive(), "Shortest step, L2."] = 0.1
    step_max: Annotated[float, Positive(), "Longest step, L2."] = 0.25
    patience: Annotated[
        int, Count(0, MOST_STEPS), "Stop an image after this many steps without improvement; 0: never."
    ] = 8
    tolerance: Annotated[
        float, Range(0.0, 1.0, below=True), "Smallest improvement that counts, as a share of the radius."
    ] = 0.005
    sample_schedule: Annotated[
        str,
        OneOf(SAMPLE_SCHEDULES),
        Formerly(FIXED),
        f"{' or '.join(SAMPLE_SCHEDULES)}: steps begin with a part of --samples, or use all of them.",
    ] = STAGED
    refine: Annotated[
        str,
        OneOf(REFINEMENTS),
        f"{REFINEMENTS[0]}: straight to the clean image, as in the paper; {REFINEMENTS[1]}: also along the boundary.",
    ] = RADIAL
    rivals: Annotated[
        int,
        Count(most=1000),
        "Attack towards this many likely classes in turn; 1: once, towards the runner-up.",
    ] = 1
    surrogate: Annotated[
        str, OneOf(SURROGATES), f"Objective whose gradient is followed: {' or '.join(SURROGATES)} (the paper's)."
    ] = LOG_RATIO
    temperature: Annotated[float, Positive(), "Temperature of --surrogate gumbel."] = 0.01
    step_certificate: Annotated[
        str | None,
        OneOf(CERTIFICATES),
        f"Certificate that bounds the steps: {', '.join(CERTIFICATES)}.",
        Shown("as --certificate"),
    ] = None

    def check(self, by_votes: bool) -> None:
        if self.step_max < self.step_min:
            raise UsageError(
                f"--step-max {self.step_max:g} is below --step-min {self.step_min:g}",
                f"raise --step-max, or lower --step-min; the paper's are {Caa.step_min} and {Caa.step_max}",
            )
        if self.rivals > 1 and self.surrogate == GUMBEL:
            raise UsageError(
                f"--rivals {self.rivals} goes with --surrogate log-ratio only",
                "the Gumbel surrogate follows whichever class leads; leave --rivals out, or --surrogate log-ratio",
            )
        if self.rivals > 1 and by_votes:
            raise UsageError(
                f"--rivals {self.rivals} begins every run at the clean image, where votes alone show no direction",
                "leave --rivals out, or use --attack caa-newton, which follows several classes by votes too",
            )

    def check_target(self) -> None:
        if self.rivals > 1:
            raise UsageError(
                f"--rivals {self.rivals} follows several classes, and --target names the one to reach",
                "leave one of the two out",
            )


@dataclass(frozen=True, kw_only=True)
class CaaNewton(Settings):
    """The certificate as Newton's step."""

    rivals: Annotated[
        int, Count(most=1000), "How many other classes to race after at first; one is left open if there are more."
    ] = 4
    steps: Annotated[int, Count(most=MOST_STEPS), "Most steps per image; --iterations is a limit too."] = 30
    memory: Annotated[
        float,
        Between(0, 1),
        "Least weight that earlier gradients keep after each step; the newest weighs 1. Noisy ones keep more.",
    ] = 0.75


@dataclass(frozen=True, kw_only=True)
class PaperBaseline(Settings):
    """A baseline of the paper."""

    gumbel_temperature: Annotated[
        float | None,
        Positive(),
        "Attack the mean Gumbel–softmax draw at this temperature in place of the logits (the paper: 0.01).",
        Shown("none"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Pgd(PaperBaseline):
    """The iterative fast gradient method, without a ball (Kurakin et al., 2017; Madry et al., 2018)."""

    epsilon: Annotated[float, Positive(), "Length of a step, L2.", Shown("20/255")] = 20 / 255


@dataclass(frozen=True, kw_only=True)
class Cw(PaperBaseline):
    """Carlini and Wagner (2017)."""

    constant: Annotated[
        float | None,
        NotNegative(),
        "Fixed weight c of the attack loss, instead of a search for it (the paper: 1e-4).",
        Shown("searched for"),
    ] = None
    initial_constant: Annotated[float, Positive(1e6), "First c of the search."] = 1e-3
    binary_search_steps: Annotated[int, _ROUNDS, "Values of c to try, each with --iterations steps."] = 9
    learning_rate: Annotated[
        float | None, Positive(), "Learning rate of Adam (the paper: 0.01).", Shown("10/iterations, at least 0.01")
    ] = None
    confidence: Annotated[float, NotNegative(), "Margin κ by which the wrong class has to lead."] = 0.0
    start_at: Annotated[
        str,
        OneOf(CW_STARTS),
        f"{CLEAN_IMAGE}: each round begins at the clean image; {MID_GREY}: at a grey one, as in the paper's code.",
    ] = CLEAN_IMAGE


@dataclass(frozen=True, kw_only=True)
class DeepFool(PaperBaseline):
    """Moosavi-Dezfooli et al. (2016)."""

    overshoot: Annotated[float, NotNegative(), "Share added to the perturbation, to cross the boundary."] = 0.02
    candidates: Annotated[
        int,
        Count(2, MOST_STEPS, hint="the label is one of them"),
        "How many of the most likely classes to consider, the label included.",
    ] = 10


@dataclass(frozen=True, kw_only=True)
class AutoAttack(PaperBaseline):
    """Croce and Hein (2020), their version for models with randomness."""

    radius: Annotated[
        float | None,
        Positive(),
        "L2 radius of the ball that is searched.",
        Shown("5 × certified radius, at least 0.1"),
    ] = None
    minimise: Annotated[bool, "Search for the smallest radius: double until success, then bisect."] = False
    searches: Annotated[int, _ROUNDS, "Radii that --autoattack-minimise tries."] = 10
    rho: _Rho = 0.75


@dataclass(frozen=True, kw_only=True)
class Ddn(Settings):
    """Decoupling direction and norm (Rony et al., 2019)."""

    initial_norm: Annotated[float, Positive(), "Length of the first perturbation, L2."] = 1.0
    gamma: Annotated[float, Between(0, 1), "Relative change of the length per step."] = 0.05


@dataclass(frozen=True, kw_only=True)
class Fmn(Settings):
    """The fast minimum-norm attack (Pintor et al., 2021). The authors' α is a step size."""

    step_size_init: Annotated[float, Positive(), "Step size at the start.", Called("alpha_init")] = 1.0
    step_size_final: Annotated[float, Positive(), "Step size at the end.", Called("alpha_final")] = 0.01
    gamma_init: Annotated[float, Between(0, 1), "Relative change of the radius in the first step."] = 0.05
    gamma_final: Annotated[float, Between(0, 1), "Relative change of the radius in the last step."] = 0.001


@dataclass(frozen=True, kw_only=True)
class Alma(Settings):
    """The augmented Lagrangian method (Rony et al., 2021). The authors' α is the weight of moving averages."""

    init_lr_distance: Annotated[float, Positive(), "Length of the first step, L2."] = 0.1
    lr_reduction: Annotated[float, Positive(), "Share of the learning rate left at the end."] = 0.01
    average: Annotated[
        float | None,
        Between(0, 1),
        "Weight of the moving averages.",
        Called("alpha"),
        Shown("0.9 from 500 iterations on, else 0.5"),
    ] = None
    mu_init: Annotated[float, Positive(), "First multiplier μ of the penalty."] = 1.0
    rho_init: Annotated[float, Positive(), "First weight ρ of the penalty."] = 1.0
    check_steps: Annotated[int, Count(most=MOST_STEPS), "Steps between checks of the constraint."] = 10
    tau: Annotated[
        float, Between(0, 1), "The constraint counts as improved if it fell below this share of its last value."
    ] = 0.95
    gamma: Annotated[float, _FACTOR, "Factor for ρ where the constraint did not improve."] = 1.2
    logit_tolerance: Annotated[float, NotNegative(), "Margin by which the wrong class has to lead in the loss."] = (
        1e-4
    )


@dataclass(frozen=True, kw_only=True)
class Pdgd(Settings):
    """Primal-dual gradient descent (Matyasko and Chau, 2021)."""

    primal_lr: Annotated[float, Positive(), "First learning rate of the perturbation, by Adam."] = 0.1
    primal_lr_decrease: Annotated[float, Positive(1.0), "Share of it left at the end."] = 0.01
    dual_ratio_init: Annotated[float, Positive(), "First weight of the distance over that of the constraint."] = 0.01
    dual_lr: Annotated[
        float | None,
        Positive(100.0),
        "First step of the log of that ratio (the authors: 0.1, for 500 iterations).",
        Shown("50/iterations, at least 0.1"),
    ] = None
    dual_lr_decrease: Annotated[float, Positive(1.0), "Share of that step left at the end."] = 0.1
    dual_ema: Annotated[float, Range(0.0, 1.0, below=True), "Weight of the past in the average of the weights."] = 0.9
    dual_min_ratio: Annotated[float, Range(1e-30, 1.0), "Smallest ratio of the two weights, either way."] = 1e-6


@dataclass(frozen=True, kw_only=True)
class Sdf(DeepFool):
    """SuperDeepFool (Abdollahpourrostam et al., 2023)."""

    bisections: Annotated[int, _ROUNDS, "Bisections of the ray to the point that is found."] = 10


@dataclass(frozen=True, kw_only=True)
class ApgdMin(Settings):
    """APGD, also towards every likely class, minimised (Croce and Hein, 2020)."""

    targets: Annotated[int, Count(most=1000), "How many likely other classes to aim at in turn."] = 9
    radius: Annotated[
        float | None, Positive(), "First L2 radius to try.", Shown("5 × certified radius, at least 0.1")
    ] = None
    searches: Annotated[int, _ROUNDS, "Radii to try: doubled until success, then bisected."] = 10
    rho: _Rho = 0.75


# Settings that older runs did not have, by flag: their default is what those runs did.
FORMERLY = {"step_certificate": None, "cw_start_at": CLEAN_IMAGE}
