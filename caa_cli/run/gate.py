"""The gate at the end of a run: does its result meet every `--require`?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from caa_cli.display import Display, visible
from caa_cli.errors import DONE, PARTIAL, REQUIREMENT_NOT_MET
from caa_cli.results.fields import Fields
from caa_cli.results.requirements import Requirement, Verdict, judge


@dataclass
class Gate:
    """Checks the requirements before the work, judges the result after it, and turns the verdicts to an exit code."""

    display: Display
    requirements: Sequence[Requirement] = ()
    verdicts: list[Verdict] = field(default_factory=list)

    def check(self, fields: Fields) -> None:
        """Before any work. Raises UsageError for a requirement on a field that the result won't have."""
        for requirement in self.requirements:
            fields.check(requirement.field)

    def judge(self, document: dict[str, Any], fields: Fields) -> dict[str, Any]:
        """The document with the verdicts on it, for stdout: the file stays the same whatever is required of it.

        A run that was interrupted is not judged: there is more to come.
        """
        if not self.requirements or document["status"] == "interrupted":
            return document
        self.verdicts = judge(self.requirements, fields)
        return {**document, "requirements": [verdict.to_json() for verdict in self.verdicts]}

    def exit_code(self, code: int, launched: bool = False) -> int:
        """The run's exit code, or that of a requirement that is not met; each of those is named.

        launched: together with other shards, which torchrun would end if one fails, so it only warns here.
        """
        if code not in (DONE, PARTIAL):
            return code
        unmet = [verdict for verdict in self.verdicts if not verdict.met]
        for verdict in unmet:
            if launched:
                self.display.warn(
                    f"requirement not met: {verdict}, by this shard alone; caa merge --require judges all of them"
                )
            else:
                say_unmet(self.display, str(verdict))
        if self.verdicts and not unmet:
            plural = "" if len(self.verdicts) == 1 else "s"
            self.display.note(f"requirement{plural} met: {', '.join(map(str, self.verdicts))}")
        return REQUIREMENT_NOT_MET if unmet and not launched else code


def say_unmet(display: Display, what: str) -> None:
    """One line on stderr; on GitHub also an annotation of the workflow run, which is read from stderr as well."""
    display.error(f"requirement not met: {what}", None)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        display.err.print(annotation(f"requirement not met: {what}"), markup=False)


def annotation(text: str) -> str:
    """A workflow command of GitHub Actions, which ends with its line: a line feed in it is %0A, and so on."""
    text = visible(text)
    for character in "%\r\n":  # the escape character first
        text = text.replace(character, f"%{ord(character):02X}")
    return f"::error title=caa::{text}"


def warn_of_nothing(display: Display, fields: Fields, shard: bool = False) -> None:
    """Warn of an empty result; a shard may rightly have one, so there it is only a note."""
    if fields.is_empty and shard:
        display.note(f"{fields.reason} in this shard")
    elif fields.is_empty:
        display.warn(f"{fields.reason}: this result says nothing about the model")
