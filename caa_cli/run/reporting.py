"""What is said of a result at its end: rows for the display."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from caa_cli.display import Rows, clock, number
from caa_cli.results.certificates import CertifySummary
from caa_cli.results.records import AttackSummary

_FILES = {"--save-adversarial": "images in", "--tsv": "log", "--figure": "figure"}


def attack_summary(summary: AttackSummary) -> Rows:
    others = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in summary.outcomes.items())
    proved = ", every one proved on fresh noise"
    rate = "" if summary.success_rate is None else f" ({100 * summary.success_rate:.0f}%)"
    rows = [
        ("images", f"{summary.examples}: {others}" if others else "0"),
        (
            "attacked",
            f"{summary.attacked} of {summary.eligible} eligible{rate}" + (proved if summary.attacked else ""),
        ),
        ("median radius", f"{number(summary.median_radius)}  (L2, pixels in [0, 1])"),
        ("median certified", f"{number(summary.median_certified_radius)}"),
        (
            "%-C",
            f"{number(summary.median_percent_over_certified, 1)}  (median excess over the certified radius)",
        ),
        (
            "time",
            f"{clock(summary.seconds)} in all, {number(summary.median_seconds, 2)} s an image; "
            f"{summary.forward_evaluations:,} forward and {summary.backward_evaluations:,} backward evaluations",
        ),
    ]
    if summary.below_certified:
        rows.append(("below certified", f"{summary.below_certified} radii: see docs/method/verification.md"))
    return rows


def certify_summary(summary: CertifySummary, radius: float | None) -> Rows:
    """radius: the one that was decided on, if it was one."""
    shares = "   ".join(f"{at}: {100 * share:.1f}%" for at, share in summary.certified_accuracy.items())
    failed = f", {summary.failed} failed" if summary.failed else ""
    rows = [
        ("images", f"{summary.examples}, {summary.abstained} abstained{failed}"),
        ("certified accuracy", shares or "–"),
    ]
    if radius is None:
        error = number(summary.average_certified_radius_error)
        rows.append(
            (
                "average radius",
                f"{number(summary.average_certified_radius)} ± {error} (standard error), n = {summary.samples}",
            )
        )
        rows.append(("median radius", f"{number(summary.median_radius)}  (L2, pixels in [0, 1])"))
    else:
        rows[0] = ("images", f"{summary.examples}, {summary.undecided} undecided{failed}")
        mean = summary.mean_samples or 0.0
        fewer = summary.samples / max(mean, 1.0)
        rows.append(("samples", f"{mean:,.0f} an image, {fewer:.0f} times fewer than {summary.samples}"))
    rows.append(("time", f"{clock(summary.seconds)} in all; {summary.evaluations:,} forward evaluations"))
    return rows


def files(output: Path, others: Mapping[str, Path | None]) -> Rows:
    """Where it all is; `others` by option."""
    written = [(_FILES.get(option, option), str(path)) for option, path in others.items() if path is not None]
    return [("results", str(output)), *written]
