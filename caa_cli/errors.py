"""The errors that a user sees, and the exit codes."""

from __future__ import annotations

from collections.abc import Sequence

DONE = 0
ERROR = 1
WRONG_USAGE = 2
PARTIAL = 3
REQUIREMENT_NOT_MET = 4
INTERRUPTED = 130


class CaaError(Exception):
    """An error that the user can mend.

    `problem` says what is wrong and, where it is known, the likely cause; `hint` is the next command
    to type or the setting to change; `exit_code` is what the process ends with.
    """

    def __init__(self, problem: str, hint: str | None = None, exit_code: int = ERROR) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        """What a traceback ends with, in Python."""
        return self.problem if self.hint is None else f"{self.problem} ({self.hint})"

    def with_advice(self, advice: str) -> CaaError:
        """The same error with one more thing to do."""
        return CaaError(self.problem, f"{self.hint}; {advice}" if self.hint else advice, self.exit_code)


class UsageError(CaaError):
    """An error in the command line itself (exit code 2)."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem, hint, WRONG_USAGE)


class MissingSettingsError(UsageError):
    """An error in a command that leaves out what caa can't know. flags: what to add to it, such as `--sigma S`."""

    def __init__(self, problem: str, flags: Sequence[str]) -> None:
        super().__init__(problem, f"add {' '.join(flags)}")
        self.flags = tuple(flags)
