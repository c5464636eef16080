"""The forecast of a dry run: evaluations, and the time and memory extrapolated from one measured batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from caa_cli.config.sizes import show_size
from caa_cli.display import Rows, clock

if TYPE_CHECKING:  # `caa compare` of finished results goes without torch
    from caa_cli.tuning.pace import Pace


@dataclass(frozen=True)
class Evaluations:
    """Model evaluations of a whole run. searching: those of `forward` that are the search's. backward: None where it
    has none."""

    forward: float
    backward: float | None = None
    searching: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """most, typical: evaluations; None where nothing is known of them. reserve: bytes beyond a batch's."""

    pace: Pace
    most: Evaluations | None
    typical: Evaluations | None = None
    reserve: int = 0

    def rows(self) -> Rows:
        """For the display: the typical and the most of each."""
        memory = ("memory", f"about {show_size(self._memory)}")
        if self.most is None:
            return [("evaluations", "unknown: the attack's code decides"), memory]
        rows = [("forward evaluations", self._between("forward"))]
        if self.most.backward is not None:
            rows.append(("backward evaluations", self._between("backward")))
        typical = None if self.typical is None else self._seconds(self.typical)
        time = _range(typical, self._seconds(self.most), clock)
        return [*rows, ("time", f"{time}, as one batch took; start-up and the reading of images left out"), memory]

    def to_json(self) -> dict[str, Any]:
        """For the document of a dry run."""
        most = self.most
        counts = {} if most is None else {"forward": most.forward, "backward": most.backward}
        return {
            **{f"{name}_evaluations_at_most": int(n) for name, n in counts.items() if n is not None},
            "seconds_typical": None if self.typical is None else self._seconds(self.typical),
            "seconds_at_most": None if most is None else self._seconds(most),
            "memory_bytes": self._memory,
        }

    @property
    def _memory(self) -> int:
        return self.pace.memory + self.reserve

    def _seconds(self, evaluations: Evaluations) -> float:
        searching = evaluations.searching
        return self.pace.seconds(evaluations.forward - searching, searching, evaluations.backward or 0.0)

    def _between(self, way: str) -> str:
        typical = None if self.typical is None else getattr(self.typical, way)
        return _range(typical, getattr(self.most, way), "{:,.0f}".format)


def _range(typical: float | None, most: float, show: Callable[[float], str]) -> str:
    if typical == most:
        return show(most)
    return f"at most {show(most)}" if typical is None else f"typically {show(typical)}, at most {show(most)}"


def summed(documents: Iterable[Mapping[str, Any]]) -> tuple[Rows, dict[str, float | None]]:
    """(rows, fields of the document) of the time that several attacks take, one after the other."""
    forecasts = list(documents)
    names = ("seconds_typical", "seconds_at_most")
    typical, most = (_sum([one[name] for one in forecasts]) for name in names)
    rows = [("time", "unknown: an attack's code decides" if most is None else _range(typical, most, clock))]
    return rows, {"seconds_typical": typical, "seconds_at_most": most}


def _sum(seconds: list[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None
