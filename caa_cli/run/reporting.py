"""A result as the display and `--require` see it: rows, and fields by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caa_cli.display import Rows, clock, number
from caa_cli.results.certificates import CertifySummary
from caa_cli.results.fields import Fields, attack_fields, certify_fields
from caa_cli.results.records import AttackSummary

Summary = AttackSummary | CertifySummary

_FILES = {"--save-adversarial": "images in", "--tsv": "log", "--figure": "figure"}


@contextmanager
def showing(interrupted: bool) -> Iterator[None]:
    """A context for the result on stdout. If Ctrl-C has ended its reader too, such as tee, the command goes on to say
    that it was interrupted."""
    try:
        yield
    except (BrokenPipeError, SystemExit):  # the latter is Rich's
        if not interrupted:
            raise


def rows_and_fields(summary: Summary, records: Sequence[Any], radius: float | None) -> tuple[Rows, Fields]:
    """Rows and fields of a result of either command; radius: the only one that was decided on, if any."""
    time = _time(summary.seconds, sum(record.seconds for record in records))
    if isinstance(summary, AttackSummary):
        return attack_summary_rows(summary, time), attack_fields(summary)
    return certify_summary_rows(summary, radius, time), certify_fields(summary, records, radius)


def _time(run: float, images: float) -> str:
    """The seconds of a run in words. Those of a resumed run are its last part's, and its images took longer."""
    if images <= run + 1:
        return f"{clock(run)} in all"
    return f"{clock(run)} since it was resumed, {clock(images)} for all images"


def attack_summary_rows(summary: AttackSummary, time: str) -> Rows:
    """Rows of an attack's summary; time: that of the run, in words."""
    outcomes = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in summary.outcomes.items())
    verified = ", every one verified on fresh noise"
    # Elsewhere, in comparisons, a failure counts as infinitely far.
    only = f"of the {summary.attacked} attacked; " if 0 < summary.attacked < summary.eligible else ""
    rate = "" if summary.success_rate is None else f" ({100 * summary.success_rate:.0f}%)"
    rows = [
        ("images", f"{summary.examples}: {outcomes}" if outcomes else "0"),
        (
            "attacked",
            f"{summary.attacked} of {summary.eligible} eligible{rate}" + (verified if summary.attacked else ""),
        ),
        ("median radius", f"{number(summary.median_radius)}  ({only}L2, pixels in [0, 1])"),
        ("median certified", f"{number(summary.median_certified_radius)}"),
        (
            "%-C",
            f"{number(summary.median_percent_over_certified, 1)}  ({only}median excess over the certified radius)",
        ),
        (
            "time",
            f"{time}, {number(summary.median_seconds, 2)} s per image; "
            f"{summary.forward_evaluations:,} forward and {summary.backward_evaluations:,} backward evaluations",
        ),
    ]
    if summary.below_certified:
        rows.append(("below certified", f"{summary.below_certified} radii: see docs/method/verification.md"))
    return rows


def certify_summary_rows(summary: CertifySummary, radius: float | None, time: str) -> Rows:
    """Rows of a certification's summary; radius: the one of --radius, if any.  time: that of the run, in words."""
    shares = "   ".join(f"{at}: {100 * share:.1f}%" for at, share in summary.certified_accuracy.items())
    failed = f", {summary.failed} failed" if summary.failed else ""
    rows = [
        ("images", f"{summary.examples}, {summary.abstained} abstained{failed}"),
        ("certified accuracy", shares or "–"),
    ]
    if radius is None:
        error = summary.average_certified_radius_error  # None of a single image
        spread = "" if error is None else f" ± {number(error)} (standard error)"
        rows.append(("average radius", f"{number(summary.average_certified_radius)}{spread}, n = {summary.samples}"))
        rows.append(("median radius", f"{number(summary.median_radius)}  (L2, pixels in [0, 1])"))
    else:
        rows[0] = ("images", f"{summary.examples}, {summary.undecided} undecided{failed}")
        mean = summary.mean_samples or 0.0
        fewer = summary.samples / max(mean, 1.0)
        compared = f" of at most {summary.samples}"
        if fewer > 1.5:
            compared = f", {fewer:.{1 if fewer < 10 else 0}f} times fewer than {summary.samples}"
        rows.append(("samples", f"{mean:,.0f} per image{compared}"))
    rows.append(("time", f"{time}; {summary.evaluations:,} forward evaluations"))
    return rows


def file_rows(output: Path, others: Mapping[str, Path | None]) -> Rows:
    """Rows that name the files written; others: by option."""
    written = [(_FILES.get(option, option), str(path)) for option, path in others.items() if path and path.exists()]
    return [("results", str(output)), *written]
