"""The columns of a comparison's tables, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

from caa_cli.results.metrics import Figures


@dataclass(frozen=True)
class Heading:
    """A column. text, latex: its heading.  figure: the name of its value in `Figures`, and of its 95% interval.

    meaning: what it says, in words.  digits: behind the point.  better: 1 for large values, -1 for small ones, 0
    where they do not say which attack is better.  count: the figure that is the number of images the value is over,
    where that is not the caption's.
    """

    text: str
    latex: str
    figure: str
    meaning: str
    digits: int = 0
    better: int = 0
    count: str | None = None

    @property
    def factor(self) -> float:
        """From the figure to the value that is shown, in the unit that the heading says."""
        return {"%": 100.0, "k": 1e-3}.get(self.text.split()[-1], 1.0)

    def value(self, figures: Figures) -> float | None:
        value: float | None = getattr(figures, self.figure)
        return value


# What can't mislead about an attack that fails on some images, in a terminal's width.
HEADINGS = (
    Heading("success %", r"Succ.\ \%", "success_rate", "eligible images attacked, verified on fresh noise", better=1),
    Heading(
        "best %",
        r"Best \%",
        "best_share",
        "images on which no other attack’s radius is smaller, ties shared out",
        better=1,
    ),
    Heading(
        "r₅₀",
        "$r_{50}$",
        "overall_median_radius",
        "median radius over all eligible images, a failure counting as infinite",
        digits=3,
        better=-1,
    ),
    Heading(
        "%-C",
        r"\%-C",
        "overall_median_percent",
        "median of 100 · (radius / certified radius − 1), a failure counting as infinite",
        better=-1,
    ),
    Heading(
        "optimality",
        "Opt.",
        "optimality",
        "1 for an attack that is the nearest on every image, less for radii above the smallest",
        digits=3,
        better=1,
    ),
    Heading("nearer %", r"Nearer \%", "nearer_share", "images on which it is nearer than {reference}"),
    Heading(
        "ratio (n)",
        "Ratio ($n$)",
        "median_radius_ratio",
        "median of its radius divided by that of {reference}, over the n images that both attacked",
        digits=3,
        count="both_attacked",
    ),
    Heading(
        "evals k",
        r"Eval.\ (k)",
        "evaluations",
        "thousands of model evaluations per image, forward and backward",
        digits=1,
        better=-1,
    ),
)
# The rest, in the order of the columns above that they explain.
FURTHER = (
    Heading(
        "near-best %",
        r"Near \%",
        "near_best_share",
        "images on which it is within 1% of the smallest radius",
        better=1,
    ),
    Heading("farther %", r"Farther \%", "farther_share", "images on which it is farther than {reference}"),
    Heading("tied %", r"Tied \%", "tied_share", "images on which it is as near as {reference}"),
    Heading(
        "difference",
        r"$\Delta r$",
        "median_radius_difference",
        "median of its radius minus that of {reference}, over the images that both attacked",
        digits=3,
    ),
    Heading(
        "r₅₀ successes",
        "$r_{50}^+$",
        "median_radius",
        "median radius over its own successes, which are other images for each attack",
        digits=3,
    ),
    Heading("%-C successes", r"\%-C$^+$", "median_percent", "the same of the excess over the certified radius"),
    Heading(
        "r₅₀ common",
        r"$r_{50}^\cap$",
        "common_median_radius",
        "median radius over the images that every attack broke",
        digits=3,
        better=-1,
    ),
    Heading(
        "%-C common",
        r"\%-C$^\cap$",
        "common_median_percent",
        "the same of the excess over the certified radius",
        better=-1,
    ),
    Heading(
        "s/image",
        "Time (s)",
        "seconds",
        "median seconds per image, certificate and verification included",
        digits=2,
        better=-1,
    ),
    Heading("forward k", r"Fwd.\ (k)", "forward", "thousands of forward evaluations per image", digits=1, better=-1),
    Heading(
        "backward k", r"Bwd.\ (k)", "backward", "thousands of backward evaluations per image", digits=1, better=-1
    ),
)


def meaning(heading: Heading, reference: str | None) -> str:
    """What a column says, in words. reference: the attack that the others are held against."""
    return heading.meaning.format(reference=reference)
