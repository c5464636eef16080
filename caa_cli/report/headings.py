"""The columns of a comparison's tables, and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from caa_cli.results.metrics import Figures


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True)
class Heading:
    """A column. text, latex: its heading.  shown: its value.  interval: the name of its 95% interval.

    count: the number of images that the value is over, where it is not that of the caption.  meaning: what it says,
    in words.  better: 1 for large values, -1 for small ones, 0 where they do not say which attack is better.
    """

    text: str
    latex: str
    shown: Callable[[Figures], float | None]
    digits: int = 0
    factor: float = 1.0
    interval: str | None = None
    count: Callable[[Figures], int | None] | None = None
    meaning: str = ""
    better: int = 0


# What can't mislead about an attack that fails on some images, in a terminal's width.
HEADINGS = (
    Heading(
        "success %",
        r"Succ.\ \%",
        lambda f: f.success_rate,
        0,
        100,
        "success_rate",
        meaning="eligible images attacked, verified on fresh noise",
        better=1,
    ),
    Heading(
        "best %",
        r"Best \%",
        lambda f: f.best_share,
        0,
        100,
        "best_share",
        meaning="images on which no other attack’s radius is smaller, ties shared out",
        better=1,
    ),
    Heading(
        "r₅₀",
        "$r_{50}$",
        lambda f: f.overall_median_radius,
        3,
        1,
        "overall_median_radius",
        meaning="median radius over all eligible images, a failure counting as infinite",
        better=-1,
    ),
    Heading(
        "%-C",
        r"\%-C",
        lambda f: f.overall_median_percent,
        0,
        1,
        "overall_median_percent",
        meaning="median of 100 · (radius / certified radius − 1), a failure counting as infinite",
        better=-1,
    ),
    Heading(
        "optimality",
        "Opt.",
        lambda f: f.optimality,
        3,
        1,
        "optimality",
        meaning="1 for an attack that is the nearest on every image, less for radii above the smallest",
        better=1,
    ),
    Heading(
        "nearer %",
        r"Nearer \%",
        lambda f: f.nearer_share,
        0,
        100,
        "nearer_share",
        meaning="images on which it is nearer than {reference}",
    ),
    Heading(
        "ratio (n)",
        "Ratio ($n$)",
        lambda f: f.median_radius_ratio,
        3,
        1,
        "median_radius_ratio",
        count=lambda f: f.both_attacked,
        meaning="median of its radius divided by that of {reference}, over the n images that both attacked",
    ),
    Heading(
        "evals k",
        r"Eval.\ (k)",
        lambda f: _sum(f.forward, f.backward),
        1,
        1e-3,
        meaning="thousands of model evaluations an image, forward and backward",
        better=-1,
    ),
)
# The rest, in the order of the columns above that they explain.
FURTHER = (
    Heading(
        "near-best %",
        r"Near \%",
        lambda f: f.near_best_share,
        0,
        100,
        "near_best_share",
        meaning="images on which it is within 1% of the smallest radius",
        better=1,
    ),
    Heading(
        "farther %",
        r"Farther \%",
        lambda f: f.farther_share,
        0,
        100,
        "farther_share",
        meaning="images on which it is farther than {reference}",
    ),
    Heading(
        "tied %",
        r"Tied \%",
        lambda f: f.tied_share,
        0,
        100,
        "tied_share",
        meaning="images on which it is as near as {reference}",
    ),
    Heading(
        "difference",
        r"$\Delta r$",
        lambda f: f.median_radius_difference,
        3,
        1,
        "median_radius_difference",
        meaning="median of its radius minus that of {reference}, over the images that both attacked",
    ),
    Heading(
        "r₅₀ successes",
        "$r_{50}^+$",
        lambda f: f.median_radius,
        3,
        1,
        "median_radius",
        meaning="median radius over its own successes, which are other images for each attack",
    ),
    Heading(
        "%-C successes",
        r"\%-C$^+$",
        lambda f: f.median_percent,
        0,
        1,
        "median_percent",
        meaning="the same of the excess over the certified radius",
    ),
    Heading(
        "r₅₀ common",
        r"$r_{50}^\cap$",
        lambda f: f.common_median_radius,
        3,
        1,
        "common_median_radius",
        meaning="median radius over the images that every attack broke",
        better=-1,
    ),
    Heading(
        "%-C common",
        r"\%-C$^\cap$",
        lambda f: f.common_median_percent,
        0,
        1,
        "common_median_percent",
        meaning="the same of the excess over the certified radius",
        better=-1,
    ),
    Heading(
        "s/image",
        "Time (s)",
        lambda f: f.seconds,
        2,
        meaning="median seconds an image, certificate and verification included",
        better=-1,
    ),
    Heading(
        "forward k",
        r"Fwd.\ (k)",
        lambda f: f.forward,
        1,
        1e-3,
        meaning="thousands of forward evaluations an image",
        better=-1,
    ),
    Heading(
        "backward k",
        r"Bwd.\ (k)",
        lambda f: f.backward,
        1,
        1e-3,
        meaning="thousands of backward evaluations an image",
        better=-1,
    ),
)


def meaning(heading: Heading, reference: str | None) -> str:
    """What a column says, in words. reference: the attack that the others are held against."""
    return heading.meaning.format(reference=reference)
