"""A finished comparison of any kind: written where options say, then shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caa_cli.config.compare_plan import ComparePlan
from caa_cli.config.ranges import setting_of
from caa_cli.display import Display
from caa_cli.errors import UsageError
from caa_cli.report.presentation import AnyComparison, present, title_of
from caa_cli.results.comparison import Comparison
from caa_cli.results.comparison_document import KEPT
from caa_cli.results.comparison_of_certificates import CertifiedComparison
from caa_cli.results.comparison_of_models import ModelsComparison
from caa_cli.results.fields import Fields, fields_of_comparison
from caa_cli.results.store.compare_output import CompareOutput
from caa_cli.results.store.files import write_atomically, write_document, writing
from caa_cli.run.drawing import drawing
from caa_cli.run.gate import Gate
from caa_cli.runtime.signals import uninterrupted

_ADVICE = "the attacks' own results are kept: free some space and compare their files again"


@dataclass
class CompareReport:
    """Writes and shows a comparison. command_line: the command that made it."""

    plan: ComparePlan
    output: CompareOutput
    display: Display
    gate: Gate
    command_line: str

    def finish(self, comparison: AnyComparison, status: str, origin: Mapping[str, Any] | None = None) -> Fields:
        """Write what was asked for, then show the table; returns its numbers.

        origin: the document that the comparison was read from.
        """
        gallery = None
        if isinstance(comparison, Comparison) and (
            self.plan.html is not None or self.plan.figure_examples is not None
        ):
            from caa_cli.run.gallery import gallery_of

            gallery = gallery_of(comparison)
        document = {**comparison.to_json(status), "command_line": self.command_line}
        document |= {name: value for name, value in (origin or {}).items() if name in KEPT}
        if self.plan.files:  # of attacks that run, what is there has been compared before they began
            self.output.check_shown(document)
        # As in the result of any run, so that a later one knows them for its own.
        document["config"] |= {setting_of(option): str(path) for option, path in self.output.side_files.items()}
        with uninterrupted():
            self.write_document(document)
            self._draw(comparison)
            if isinstance(comparison, Comparison):
                self._write_images(comparison, document, gallery)
        for note in comparison.notes:
            self.display.warn(note)
        fields = fields_of_comparison(document)
        self.show(document, fields)
        self._show_table(comparison)
        return fields

    def write_document(self, document: dict[str, Any]) -> None:
        if self.plan.output is not None:
            with writing(self.plan.output, _ADVICE):
                write_document(self.plan.output, document)

    def show(self, document: dict[str, Any], fields: Fields) -> None:
        """Show the document where --json asks for it, with the verdicts of --require."""
        self.display.document(self.gate.judge(document, fields))

    def _draw(self, comparison: AnyComparison) -> None:
        """Draw the pictures that show numbers."""
        title = title_of(comparison)
        for name, (option, path) in self.plan.pictures.items():
            with writing(path, _ADVICE), drawing(option, path, self.display):
                if isinstance(comparison, ModelsComparison):
                    from caa_cli.report.models import write_pictures

                    write_pictures(path, name, comparison, title)
                elif isinstance(comparison, Comparison):
                    from caa_cli.report.plots import write_picture

                    write_picture(path, name, comparison, title)
        place, option = self.plan.figure_certified, "--figure-certified"
        if isinstance(comparison, CertifiedComparison) and place is not None:
            from caa_cli.report.models import draw_certified_curves

            with writing(place, _ADVICE), drawing(option, place, self.display):
                models = {model.label: comparison.records(model) for model in comparison.models}
                draw_certified_curves(place, models, title, comparison.fingerprint, comparison.radius)

    def _write_images(self, comparison: Comparison, document: Mapping[str, Any], gallery: Any) -> None:
        """Write what shows images: the gallery and the page."""
        place, option = self.plan.figure_examples, "--figure-examples"
        if place is not None:
            from caa_cli.report.gallery import draw_gallery

            with writing(place, _ADVICE), drawing(option, place, self.display):
                draw_gallery(place, gallery, title_of(comparison), comparison.fingerprint)
        if self.plan.html is not None:
            from caa_cli.report.html import report

            with writing(self.plan.html, _ADVICE):
                write_atomically(self.plan.html, report(comparison, document, gallery).encode())

    def _show_table(self, comparison: AnyComparison) -> None:
        shown = present(comparison)
        if self.plan.format in shown.writers:
            self.display.text(shown.writers[self.plan.format](comparison))
        else:
            self.display.grid(shown.title, shown.headings, shown.rows, shown.explanation)
        files = [str(path) for path in self.plan.written().values() if path.exists()]
        if files:
            self.display.note(f"written: {', '.join(files)}")


def check_applicable(plan: ComparePlan, comparison: AnyComparison) -> None:
    """Raises UsageError for an option that says nothing about this kind of comparison."""
    of_one_model = {"--html": plan.html, "--figure-examples": plan.figure_examples}
    if isinstance(comparison, CertifiedComparison):
        others = {"--reference": plan.reference, "--bootstrap": plan.bootstrap or None}
        hint = "leave it out; --figure-certified FILE draws their curves"
        why = "is of results of caa attack, and these are of caa certify"
        _refuse({**of_one_model, **dict(plan.pictures.values()), **others}, why, hint)
        return
    hint = "name results of caa certify, or leave it out"
    _refuse({"--figure-certified": plan.figure_certified}, "is of results of caa certify", hint)
    if isinstance(comparison, ModelsComparison):
        models = ", ".join(comparison.comparisons)
        _refuse(of_one_model, f"shows one model, and these are results of {models}", "name the files of one")


def _refuse(given: Mapping[str, object], why: str, hint: str) -> None:
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"{option} {why}", hint)
