"""What the display shows while an attack runs: the images done, their summary, and where the search is."""

from __future__ import annotations

import time
from collections.abc import Sequence

from caa_cli.attacks.common.state import Batch
from caa_cli.display import REFRESH_SECONDS, Bar, number
from caa_cli.results.records import summarise
from caa_cli.results.store.attack_output import AttackOutput


class AttackProgress:
    """The progress of one run, `output`, over these images, those done earlier included."""

    def __init__(self, bar: Bar, output: AttackOutput, indices: Sequence[int]) -> None:
        self.bar, self.output, self.indices = bar, output, indices
        self.done, self.text = 0, ""
        self._sum_up()
        bar.update(self.done, self.text)

    def count(self) -> None:
        """Another image is in the output."""
        self.done += 1
        if time.monotonic() - self.summed_up > REFRESH_SECONDS or self.done == len(self.indices):
            self._sum_up()
        self.bar.update(self.done, self.text)

    def show_step(self, state: Batch) -> None:
        """The search has taken a step."""
        if len(state) == 1:
            now = f"image {int(state.indices[0])}: step {int(state.iteration[0])}"
        else:
            now = f"{len(state)} images: steps {int(state.iteration.min())}–{int(state.iteration.max())}"
        self.bar.update(self.done, self.text, now)

    def _sum_up(self) -> None:
        self.summed_up = time.monotonic()
        records = self.output.of(self.indices)
        summary = summarise(records, 0.0)
        self.done = len(records)
        if summary.eligible:
            self.text = (
                f"{100 * (summary.success_rate or 0):.0f}% attacked · median radius "
                f"{number(summary.median_radius)} · {number(summary.median_percent_over_certified, 0)} %-C"
            )
