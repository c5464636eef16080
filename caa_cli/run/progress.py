"""What the display shows while a run works: the images done, the numbers so far, and where a search is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from caa_cli.attacks.common.state import Batch
from caa_cli.display import REFRESH_SECONDS, Bar, number
from caa_cli.results.certificates import CertifyRecord, summarise_certificates
from caa_cli.results.records import AttackRecord, Record, summarise
from caa_cli.runtime.words import counted

R = TypeVar("R", bound=Record)


@dataclass
class Progress(ABC, Generic[R]):
    """The progress of one run of `total` images. records: those that are finished, of an earlier run too.

    A median over all images takes time: the numbers are renewed now and then.
    """

    bar: Bar
    total: int
    records: Callable[[], Sequence[R]]
    done: int = field(default=0, init=False)
    text: str = field(default="", init=False)
    summed_up: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._sum_up()
        self.bar.update(self.done, self.text)

    @abstractmethod
    def describe(self, records: Sequence[R]) -> str:
        """The numbers so far, of at least one image."""

    def count(self) -> None:
        """Shows that another image is finished."""
        self.done += 1
        if time.monotonic() - self.summed_up > REFRESH_SECONDS or self.done == self.total:
            self._sum_up()
        self.bar.update(self.done, self.text)

    def _sum_up(self) -> None:
        self.summed_up = time.monotonic()
        records = self.records()
        self.done = len(records)
        self.text = self.describe(records) if records else ""


class AttackProgress(Progress[AttackRecord]):
    def describe(self, records: Sequence[AttackRecord]) -> str:
        summary = summarise(records, 0.0)
        if not summary.eligible:
            return ""
        attacked = f"{100 * (summary.success_rate or 0):.0f}% attacked"
        if not summary.attacked:
            return attacked
        return (
            f"{attacked} · median radius {number(summary.median_radius)} · "
            f"{number(summary.median_percent_over_certified, 0)} %-C"
        )

    def show_step(self, state: Batch) -> None:
        """Shows where the search is."""
        which = f"image {int(state.indices[0])}" if len(state) == 1 else counted(len(state), "image")
        first, last = int(state.iteration.min()), int(state.iteration.max())
        steps = f"step {first}" if first == last else f"steps {first}–{last}"
        if len(state) == 1 and state.search[0] > 0:
            steps = f"search {int(state.search[0]) + 1}, {steps}"
        self.bar.update(self.done, self.text, f"{which}: {steps}")


@dataclass
class CertifyProgress(Progress[CertifyRecord]):
    """radius: the one that is decided on, if any."""

    radius: float | None = None

    def describe(self, records: Sequence[CertifyRecord]) -> str:
        summary = summarise_certificates(records, 0, 0.0, self.radius)
        share = next(iter(summary.certified_accuracy.values()), 0.0)
        certified = f"{100 * share:.0f}% right and certified"
        if self.radius is None:
            return f"{certified} · average radius {number(summary.average_certified_radius)}"
        return f"{certified} · {counted(round(summary.mean_samples or 0), 'sample', ',')} per image"
