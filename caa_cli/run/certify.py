"""`caa certify` from the plan to the result file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.display import Bar, Display, Rows
from caa_cli.results.certificates import CertifyRecord, CertifySummary, cohen_log, summarise_certificates
from caa_cli.results.fields import certify_fields
from caa_cli.results.requirements import Requirement
from caa_cli.results.store.files import write_atomically
from caa_cli.results.store.output import RunOutput
from caa_cli.run.certify_pipeline import CertifyPipeline, decider_of
from caa_cli.run.drawing import drawing
from caa_cli.run.dry_run import Evaluations, Forecast
from caa_cli.run.feasibility import certify_warnings
from caa_cli.run.gate import Gate
from caa_cli.run.image_run import ImageRun
from caa_cli.run.progress import CertifyProgress
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.pace import measure_pace


@dataclass
class CertifyRun(ImageRun[CertifyPlan, CertifyRecord]):
    """Certificates of the images, or one decision for each where the plan has a radius."""

    command = "certify"

    def rows(self) -> Rows:
        plan = self.plan
        what = "the radius" if plan.radius is None else f"whether it reaches {plan.radius:g}"
        most = "" if plan.radius is None else "at most "
        samples = f"{most}{counted(plan.samples, 'sample')}, class chosen on {plan.selection_samples} others"
        return [
            *self.session.describe(self._bounds()),
            ("certify", f"{what}: {samples}"),
            ("results", str(plan.output)),
        ]

    def forecast(self, classifier: SmoothedClassifier) -> Forecast:
        """With --radius most images take far fewer samples; how many is not known beforehand."""
        most = Evaluations(len(self.session.indices) * (self.plan.selection_samples + self.plan.samples))
        typical = most if self.plan.radius is None else None
        return Forecast(measure_pace(classifier, search=False), most, typical)

    def load_classifier(self) -> SmoothedClassifier:
        return self.session.load_classifier(self.display)

    def process(self, classifier: SmoothedClassifier, todo: list[int], bar: Bar) -> None:
        indices = self.session.indices
        progress = CertifyProgress(bar, len(indices), lambda: self.output.of(indices), self.plan.radius)
        for record in CertifyPipeline(self.plan, classifier, self.session.images).run(todo):
            self.output.add(record)
            progress.count()

    def summarise(self, records: Sequence[CertifyRecord], seconds: float) -> CertifySummary:
        return summarise_certificates(records, self.plan.samples, seconds, self.plan.radius)

    def _bounds(self) -> str | None:
        """The bounds in words, where --bound has no part: in the decision on one radius."""
        plan = self.plan
        if plan.radius is None:
            return None
        stages = counted(len(decider_of(plan).stages()), "stage")
        return f"exact bounds, α = {plan.alpha:g} shared out over {stages}"

    def warn_if_impossible(self) -> None:
        for warning in certify_warnings(self.plan, self.session.card.num_classes):
            self.display.warn(warning)

    def write_side_files(self, records: Sequence[CertifyRecord]) -> None:
        plan = self.plan
        if plan.tsv is not None:
            with self.output.writing(plan.tsv):
                write_atomically(plan.tsv, cohen_log(records).encode())
        if plan.figure is not None:
            from caa_cli.report.models import draw_certified_curves

            with self.output.writing(plan.figure), drawing("--figure", plan.figure, self.display):
                title = f"{plan.dataset}, {plan.arch}, σ = {plan.sigma:g}"
                draw_certified_curves(plan.figure, {"": records}, title, radius=plan.radius)


def run_certify(
    plan: CertifyPlan, display: Display, resume_command: str, requirements: Sequence[Requirement] = ()
) -> int:
    """Runs a plan as typed; returns the exit code. Raises CaaError for whatever the user can mend."""
    output = RunOutput[CertifyRecord](plan.output, plan.written(), plan.resume, plan.overwrite)
    fields, gate = certify_fields(radius=plan.radius), Gate(display, requirements)
    return CertifyRun.open(plan, output, fields, gate, resume_command).execute()
