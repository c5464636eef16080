"""The output of a comparison: its document, pictures and page, all derived from the attacks' results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caa_cli.config.compare_plan import ComparePlan
from caa_cli.config.differences import differences
from caa_cli.errors import UsageError
from caa_cli.results.agreement import digest
from caa_cli.results.store.files import check_writable
from caa_cli.results.store.ownership import (
    another_run,
    check_intact,
    check_result,
    check_side_files,
    is_named_by,
    marked,
    something_at,
)


class CompareOutput:
    """The files that the comparison itself writes, and the checks whether they may replace existing files."""

    def __init__(self, plan: ComparePlan) -> None:
        self.plan = plan
        self.held: dict[str, Any] = {}

    @property
    def side_files(self) -> dict[str, Path]:
        return {option: path for option, path in self.plan.written().items() if option != "--output"}

    def check(self) -> None:
        """Check before any work that every file can be written and replaces nothing. Raises CaaError.

        The content of result files to read is not known yet; `check_shown` compares it.
        """
        plan = self.plan
        if plan.output is not None:
            check_writable(plan.output, "--output")
            self.held = check_result(plan.output)
            if not self.held and not plan.overwrite:
                check_intact(plan.output)
        check_side_files(self.side_files, self.held, plan.overwrite or bool(plan.files))
        if not self.held or plan.overwrite or plan.files:
            return
        self._refuse(_other_attacks(self.held, list(plan.attacks), {}))
        # Differences in settings are found when the attacks' results are read, where they still exist.
        for label in self.held.get("attacks", {}):
            if not plan.resume and not plan.attacks[label].output.exists():
                self._refuse([f"{plan.attacks[label].output}, which it compares, is not there any more"])

    def check_shown(self, document: dict[str, Any]) -> None:
        """Raises UsageError where this document or its pictures would replace another comparison."""
        if self.plan.overwrite:
            return
        if self.held:
            try:
                self._refuse(_lost(self.held, document))
            except (KeyError, TypeError, AttributeError):
                self._refuse(["it is damaged"])
        for option, path in self.side_files.items():
            ours = not something_at(path) or is_named_by(self.held, option, path)
            if not ours and marked(path) != document["fingerprint"]:
                raise another_run(option, path)

    def _refuse(self, differing: list[str]) -> None:
        if differing:
            raise UsageError(
                f"{self.plan.output} is another comparison: {', '.join(differing)}",
                "choose another --output, or add --overwrite to replace it",
            )


def _other_attacks(held: dict[str, Any], here: list[str], models: dict[str, Any]) -> list[str]:
    """The difference, in words, where the existing document is of other attacks or models than these.

    models: those of the new document, by label; empty where it has but one.
    """
    if held["command"] != "compare":
        return [f"command ({held['command']} there, compare here)"]
    known, new = (
        {label: digest(model, "checkpoint") for label, model in entries.items()}
        for entries in (held.get("models", {}), models)
    )
    if not known.items() <= new.items():
        return [f"models ({_listed(known)} there, {_listed(new)} here)"]
    there = list(held.get("attacks", {}))
    return [] if set(there) <= set(here) else [f"attacks ({', '.join(there)} there, {', '.join(here)} here)"]


def _listed(models: dict[str, str | None]) -> str:
    return ", ".join(f"{label} ({digest})" for label, digest in models.items()) or "one"


def _lost(held: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What the new document lacks or changes of the existing one, in words."""
    here = new["attacks"]
    differing = _other_attacks(held, list(here), new.get("models", {}))
    if differing:
        return differing
    if digest(held, "checkpoint") != digest(new, "checkpoint"):
        differing.append(f"checkpoint content ({digest(held, 'checkpoint')} there, {digest(new, 'checkpoint')} here)")
    shared = held.get("config", {})
    differing += differences(shared, new["config"], [name for name in new["config"] if name in shared])
    for label, attack in held.get("attacks", {}).items():
        settings = differences(attack["settings"], here[label]["settings"], list(attack["settings"]))
        differing += [f"{label}: {text}" for text in settings]
        images = {example["index"] for example in here[label]["examples"]}
        lost = sum(example["index"] not in images for example in attack["examples"])
        differing += [f"{lost} of the images under {label} are missing here"] if lost else []
    return differing
