"""What every run over the images of a data set does alike: the checks before, interruption, and the exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from caa_cli.config.plan import ModelPlan
from caa_cli.display import Bar, Display
from caa_cli.errors import DONE, INTERRUPTED, PARTIAL
from caa_cli.results.records import FAILED
from caa_cli.results.requirements import Requirement
from caa_cli.results.store.files import read_object
from caa_cli.results.store.output import RunOutput
from caa_cli.run.gate import Gate


@dataclass
class ImageRun:
    """One run. `resume_command` is the command that would go on with it, for the advice after an interruption."""

    display: Display
    resume_command: str
    requirements: Sequence[Requirement] = field(default=(), kw_only=True)
    began: float = field(default_factory=time.perf_counter, kw_only=True)

    def __post_init__(self) -> None:
        self.gate = Gate(self.display, self.requirements)

    def check_files(self, plan: ModelPlan, output: RunOutput[Any]) -> None:
        """Before anything is loaded: can all that is asked for be written?"""
        if not plan.dry_run:
            output.check(plan.shard)
        if plan.figure is not None:
            from caa_cli.report.figure import check_figure

            check_figure(plan.figure)

    def nothing_to_do(self, output: RunOutput[Any]) -> dict[str, Any]:
        """Says that the result is there already; returns its document."""
        self.display.note(f"{output.output} is finished already: there is nothing to do")
        return read_object(output.output)

    def work(self, output: RunOutput[Any], indices: Sequence[int], do: Callable[[list[int], Bar], None]) -> bool:
        """Has `do` work through the images that are not done yet; returns whether it was interrupted.

        What is finished by then is in `output`.
        """
        todo = [index for index in indices if index not in output.records]
        done = len(indices) - len(todo)
        if output.records:
            self.display.note(f"going on with {output.source}: {len(output.records)} images are done already")
        try:
            with output.working(), self.display.bar("images", len(indices), done) as bar:
                do(todo, bar)
        except KeyboardInterrupt:
            return True
        return False

    def exit_code(
        self, output: RunOutput[Any], indices: Sequence[int], interrupted: bool, launched: bool = False
    ) -> int:
        """Says how to go on, where there is more to do. `launched`: together with the other shards."""
        if interrupted:
            self.display.interrupted(len(output.of(indices)), len(indices), output.output, self.resume_command)
            return INTERRUPTED
        failed = [record for record in output.everything() if record.outcome == FAILED]
        if not failed:
            return DONE
        self.display.warn(f"{len(failed)} of the images failed; the first is {failed[0].index}: {failed[0].error}")
        self.display.warn(f"try them again with: {self.resume_command}")
        # torchrun would end the other shards for it. Their result has the status, and `caa merge` the exit code.
        return DONE if launched else PARTIAL
