"""A run over the images of a data set, from its plan to its result: what `caa attack` and `caa certify` share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.ranges import setting_of
from caa_cli.display import Bar, Display, Rows
from caa_cli.errors import DONE, INTERRUPTED, PARTIAL
from caa_cli.results.fields import Fields
from caa_cli.results.records import FAILED, Record
from caa_cli.results.shards.result_file import ResultFile
from caa_cli.results.store.files import read_object
from caa_cli.results.store.output import RunOutput
from caa_cli.results.store.ownership import is_named_by
from caa_cli.run.dry_run import Forecast
from caa_cli.run.gate import Gate, warn_of_nothing
from caa_cli.run.reporting import Summary, file_rows, rows_and_fields, showing
from caa_cli.run.session import Session, open_session
from caa_cli.runtime.signals import uninterrupted
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.choose import check_memory

P = TypeVar("P", bound=ModelPlan)
R = TypeVar("R", bound=Record)


@dataclass
class ImageRun(ABC, Generic[P, R]):
    """One run. resume_command: the command that would go on with it, for the advice after an interruption."""

    command: ClassVar[str]

    session: Session[P]
    output: RunOutput[R]
    gate: Gate
    resume_command: str
    began: float
    surrogate: dict[str, Any] | None = field(default=None, init=False)  # the record of its checkpoint

    @classmethod
    def open(
        cls, plan: P, output: RunOutput[R], fields: Fields, gate: Gate, resume_command: str, **settings: Any
    ) -> Self:
        """The run of a plan as typed: everything is checked and opened that needs no model.

        fields: the names that --require may use. settings: further fields of the class. Raises CaaError for whatever
        the user can mend.
        """
        began = time.perf_counter()
        gate.check(fields)
        if not plan.dry_run:
            output.check(plan.shard)
        if plan.figure is not None:
            from caa_cli.report.figure import check_figure

            check_figure(plan.figure)
        return cls(open_session(plan, gate.display), output, gate, resume_command, began, **settings)

    @property
    def plan(self) -> P:
        """The resolved plan."""
        return self.session.plan

    @property
    def display(self) -> Display:
        return self.gate.display

    def execute(self) -> int:
        """Runs it all; returns the exit code. Raises CaaError for whatever the user can mend."""
        plan, session, output = self.plan, self.session, self.output
        self.display.plan(f"caa {self.command}", self.rows())
        self.warn_if_impossible()
        if plan.dry_run:
            forecast = self.forecast(self.load_classifier())
            self.display.forecast("what it takes", forecast.rows())
            self.display.document({"config": plan.config(), "images": len(session.indices), **forecast.to_json()})
            return DONE
        header = {**session.header(self.command, self.surrogate), "resume": self.resume_command}
        with output.reserved():
            finished = output.load_finished(header, plan.compared_keys(), session.indices)
            if finished is not None:
                self.display.note(f"{output.output} is finished already: there is nothing to do")
                document = read_object(output.output)
                self._complete(document, finished)
                self._show(document, self.summarise(finished.records, finished.seconds), finished.records)
                return self.gate.exit_code(DONE, plan.shard.launched)
            classifier = self.load_classifier()
            header["environment"]["engine"] = classifier.describe()
            self.begin()
            interrupted = self._work(classifier)
            # Where memory ran out, the chunks have been halved since.
            header["environment"]["engine"] = classifier.describe()
            interrupted = self._finish(interrupted)
        check_memory(plan, classifier.device, self.display)
        return self.gate.exit_code(self._exit_code(interrupted), plan.shard.launched)

    @abstractmethod
    def rows(self) -> Rows:
        """The rows that describe the run before it begins."""

    @abstractmethod
    def warn_if_impossible(self) -> None:
        """Warns where too few samples make a run find nothing, however sure the model is."""

    @abstractmethod
    def forecast(self, classifier: SmoothedClassifier) -> Forecast:
        """The forecast of the whole run, from the pace of one batch."""

    @abstractmethod
    def load_classifier(self) -> SmoothedClassifier:
        """The smoothed model on its device."""

    def begin(self) -> None:
        """Opens `output`, with what an earlier run finished."""
        self.output.begin()

    @abstractmethod
    def process(self, classifier: SmoothedClassifier, todo: list[int], bar: Bar) -> None:
        """Works through these images; each is in `output` as soon as it is finished."""

    @abstractmethod
    def summarise(self, records: Sequence[R], seconds: float) -> Summary:
        """The numbers over all images."""

    @abstractmethod
    def write_side_files(self, records: Sequence[R]) -> None:
        """Write the further files that options name, after the result."""

    def _complete(self, document: dict[str, Any], finished: ResultFile[R]) -> None:
        """Write the further files that a finished run lacks, and put their names, and its own --name, into its
        result."""
        written = {option: path for option, path in self.plan.written().items() if path is not None}
        lacking = not all(is_named_by(document, option, path) and path.exists() for option, path in written.items())
        name = self.plan.config().get("name") or finished.name
        if not lacking and name == finished.name:
            return
        with uninterrupted():
            if lacking:
                self.write_side_files(finished.records)
            there = {option: path for option, path in written.items() if path.exists()}
            document["config"] |= {setting_of(option): str(path) for option, path in there.items()}
            if name != finished.name:
                document["config"]["name"] = name
                self.display.note(f"it is called {name} from now on")
            self.output.write(document)

    def _work(self, classifier: SmoothedClassifier) -> bool:
        """Processes the images that are not done yet; returns whether it was interrupted."""
        output, indices = self.output, self.session.indices
        todo = [index for index in indices if index not in output.records]
        if output.records:
            self.display.note(f"going on with {output.source}: {counted(len(output.records), 'image')} done already")
        try:
            with output.working(), self.display.bar("images", len(indices), len(indices) - len(todo)) as bar:
                self.process(classifier, todo, bar)
        except KeyboardInterrupt:
            return True
        return False

    def _finish(self, interrupted: bool) -> bool:
        """Write and show the result; returns whether the run was interrupted, before or meanwhile."""
        output = self.output
        records, status = output.everything(), output.status(interrupted)
        summary = self.summarise(records, time.perf_counter() - self.began)
        try:
            with uninterrupted():
                document = output.finish(status, summary.to_json(), records, self.session.classes.names)
                self.write_side_files(records)
                output.close(status)
        except KeyboardInterrupt:  # it was held back while the files were written
            interrupted = True
        with showing(interrupted):
            self._show(document, summary, records, interrupted)
        return interrupted

    def _show(
        self, document: dict[str, Any], summary: Summary, records: Sequence[R], interrupted: bool = False
    ) -> None:
        plan = self.plan
        rows, fields = rows_and_fields(summary, records, document["config"].get("radius"))
        self.display.document(self.gate.judge(document, fields))
        self.display.result("result", [*rows, *file_rows(plan.output, plan.written())])
        if not interrupted:
            warn_of_nothing(self.display, fields, plan.shard.count > 1)

    def _exit_code(self, interrupted: bool) -> int:
        """The exit code; where there is more to do, the display says how to go on."""
        output, indices = self.output, self.session.indices
        if interrupted:
            self.display.interrupted(len(output.of(indices)), len(indices), output.output, self.resume_command)
            return INTERRUPTED
        failed: list[Any] = [record for record in output.everything() if record.outcome == FAILED]
        if not failed:
            return DONE
        self.display.warn(f"{len(failed)} of the images failed; the first is {failed[0].index}: {failed[0].error}")
        self.display.warn(f"try them again with: {self.resume_command}")
        # torchrun would end the other shards after PARTIAL; the result has the status, and `caa merge` the exit code.
        return DONE if self.plan.shard.launched else PARTIAL
