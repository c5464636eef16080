"""The pictures of `caa compare`: a row of `PICTURES` each. Nothing else in the package lists them."""

from __future__ import annotations

from dataclasses import dataclass

from caa_cli.config.ranges import flag

SWEEP = "sweep"
# How many images the --figure of caa attack shows.
MOST_EXAMPLES = 8


@dataclass(frozen=True)
class PictureSpec:
    """draws: `module:function` of a matplotlib axis and a comparison.  help: of its option.

    caption: below it, on the page of --html.  option: its name in an environment variable or a TOML file.
    """

    option: str
    draws: str
    help: str
    caption: str

    @property
    def flag(self) -> str:
        return flag(self.option)


PICTURES: dict[str, PictureSpec] = {
    "proportion": PictureSpec(
        "figure",
        "caa_cli.report.plots:proportion",
        "Draw the share attacked by radius (needs matplotlib).",
        "Attack proportion: the share of eligible images with a verified attack within a radius. No attack can be "
        "left of the certified bound, except with probability α for an image.",
    ),
    "excess": PictureSpec(
        "figure_excess",
        "caa_cli.report.plots:excess",
        "Draw % over the certified radius by class expectation (needs matplotlib).",
        "Percentage over the certified radius against the share of votes of the clean image’s class; one mark "
        "an image.",
    ),
    "evaluations": PictureSpec(
        "figure_evaluations",
        "caa_cli.report.plots:evaluations",
        "Draw radius by model evaluations (needs matplotlib).",
        "Radius against what it took; one mark an image, the large ones at the medians.",
    ),
    SWEEP: PictureSpec(
        "figure_sweep",
        "caa_cli.report.sweep:draw_sweep",
        "Draw radius by the one or two settings that vary (needs matplotlib).",
        "Median radius by setting, with the share of eligible images that were attacked.",
    ),
}
