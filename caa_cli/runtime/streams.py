"""stdout and stderr that may be closed, full, without UTF-8, or without a reader.

A failed write to stdout is an error, since the user asked for that output. A failed write to stderr is ignored: no
message is worth stopping a run.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any, TextIO

from caa_cli.errors import CaaError

_UNENCODABLE = "caa.spelt_out"
_SPELT_OUT = {
    **{"σ": "sigma", "α": "alpha", "Φ": "Phi", "δ": "delta", "ρ": "rho", "κ": "kappa", "λ": "lambda", "μ": "mu"},
    **{"₀": "0", "₁": "1", "₂": "2", "₅": "5", "²": "^2", "∞": "inf", "±": "+-"},
    **{"×": "x", "·": "|", "–": "-", "−": "-", "…": "...", "→": "->", "≥": ">=", "≤": "<=", "━": "-"},
    **{"“": '"', "”": '"', "’": "'"},
}


def prepare() -> None:
    """Make the process's streams safe to write to, from here on."""
    codecs.register_error(_UNENCODABLE, _spell_out)
    # The next file to be opened would get a closed descriptor's number, and receive what is meant for the stream.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = Stdout(sys.stdout)
    sys.stderr = Stderr(sys.stderr)


def check_stdout() -> None:
    """Raise CaaError where the caller has closed stdout."""
    if sys.stdout is None or (isinstance(sys.stdout, Stdout) and sys.stdout.is_closed):
        raise CaaError(
            "stdout is closed, so there is nowhere to write the result to",
            "send it to a file: caa … > result.txt, or to /dev/null",
        )


def as_written(text: str, stream: Any) -> str:
    """The text as a stream that `prepare` has seen writes it, for its width."""
    if getattr(stream, "errors", None) != _UNENCODABLE:
        return text
    return text.encode(stream.encoding, _UNENCODABLE).decode(stream.encoding)


class _Stream:
    """A wrapper of a text stream; every method but `write` and `flush`, which may fail, is the stream's.

    is_closed: the caller has closed the stream, and /dev/null takes its place.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.is_closed = stream is None
        self.stream: TextIO = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        if isinstance(self.stream, io.TextIOWrapper):
            self.stream.reconfigure(errors=_UNENCODABLE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, method: Any, *arguments: str) -> None:
        try:
            method(*arguments)
        except OSError as error:
            # What is still buffered goes to /dev/null, or writing it would fail again when Python exits.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
            self.failed(error)

    def failed(self, error: OSError) -> None:
        """Called after a failed write."""


class Stdout(_Stream):
    def write(self, text: str) -> int:
        check_stdout()
        return super().write(text)

    def failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):  # it ends the command silently
            raise error
        raise CaaError(
            f"can't write to stdout ({error.strerror})",
            "files that were asked for are written all the same; send stdout elsewhere",
        ) from error


class Stderr(_Stream):
    """What can't be written is left out."""


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """Replacements of characters that the stream's encoding lacks: `sigma` for σ, an escape for most of them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    spelt = (_SPELT_OUT.get(one) or one.encode("ascii", "backslashreplace").decode() for one in characters)
    return "".join(spelt), error.end
