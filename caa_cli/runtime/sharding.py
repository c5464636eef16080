"""The shard of the images that a process works on, and the names of its files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caa_cli.errors import UsageError
from caa_cli.runtime import launchers
from caa_cli.runtime.words import counted


@dataclass(frozen=True)
class Shard:
    """Every `count`-th example, from the `index`-th on.

    chosen: the launcher that chose the shard, in words; None for the user.  local: the process's number on its
    machine, and so its GPU.  launched: by torchrun or srun, which may end all processes where one fails.
    """

    index: int = 0
    count: int = 1
    chosen: str | None = None
    local: int | None = None
    launched: bool = False

    def __str__(self) -> str:
        return f"shard {self.index} of {self.count}"

    def path_for(self, path: Path) -> Path:
        """This shard's file, attack.shard-1-of-8.json for attack.json, as all shards share one --output."""
        return path.with_name(f"{path.stem}{self._mark}{path.suffix}") if self.count > 1 else path

    @property
    def _mark(self) -> str:
        return f".shard-{self.index}-of-{self.count}"

    def sibling(self, path: Path, index: int) -> Path:
        """Another shard's file, where `path` is named for this shard; else `path`."""
        return path.with_name(path.name.replace(self._mark, Shard(index, self.count)._mark))

    def check_siblings(self, path: Path) -> None:
        """Raises UsageError where shards of another number have left results beside this one's `path`."""
        first, _, last = path.name.rpartition(self._mark)
        alike = re.compile(rf"{re.escape(first)}\.shard-\d+-of-(\d+){re.escape(last)}(\.jsonl)?")
        for name in sorted(entry.name for entry in path.parent.iterdir()):
            match = alike.fullmatch(name)
            if match and int(match[1]) != self.count:
                raise UsageError(
                    f"{path.with_name(name)} is one of {match[1]} shards, but this is {self} ({self.chosen})",
                    f"for a part of a Slurm array that is sent again: --shard auto/{match[1]} (the array as it was "
                    "first); for another run: another --output, or --overwrite",
                )

    @staticmethod
    def parse(text: str, environment: Mapping[str, str]) -> Shard:
        """`k/n`, `auto`, or `auto/A`, where A is the Slurm array as it was first submitted: 8, 10-17 or 0-14:2.

        Raises UsageError for what is none of them, and where the environment says something else.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if match:
            return _given(int(match[1]), int(match[2]), environment)
        match = re.fullmatch(r"auto(?:/(?:(\d{1,9})|(\d{1,9})-(\d{1,9})(?::(\d{1,9}))?))?", text, re.ASCII)
        if not match:
            raise UsageError(
                f"--shard {text!r} is not of the form k/n", "for instance --shard 0/4; or auto, or auto/8"
            )
        count, first, last, step = (None if part is None else int(part) for part in match.groups())
        array = None
        if text != "auto":
            array = range(count) if count is not None else range(first or 0, (last or 0) + 1, max(step or 1, 1))
            if not array or step == 0:
                raise UsageError(f"--shard {text}: such an array has no tasks", "for instance --shard auto/8")
        return _automatic(array, text, environment)


def _given(index: int, count: int, environment: Mapping[str, str]) -> Shard:
    if count == 0:
        raise UsageError(f"--shard {index}/0: a run has one shard or more", "for instance --shard 0/4")
    if index >= count:
        raise UsageError(
            f"--shard {index}/{count}: there is no shard {index} of {count}",
            f"shards are numbered from 0: use 0/{count} to {count - 1}/{count}",
        )
    ranks = launchers.torchrun(environment)
    if ranks is None or ranks.count == 1:
        return Shard(index, count)
    if (ranks.index, ranks.count) != (index, count):
        problem = (
            f"torchrun has started {counted(ranks.count, 'process')}, and each of them would work on all the images"
            if count == 1
            else f"--shard {index}/{count}, but this is {ranks.what}"
        )
        raise UsageError(problem, "use --shard auto; or, if they are no shards of this run: env -u RANK caa …")
    return Shard(index, count, None, ranks.local, launched=True)


def _automatic(array: range | None, text: str, environment: Mapping[str, str]) -> Shard:
    """The array's tasks are divided among srun's, and those among torchrun's processes."""
    ranks, tasks = launchers.processes(environment)
    part = launchers.array(environment, array, text)
    if array is not None and part is None:
        raise UsageError(
            f"--shard {text} is about a Slurm array, but there is none here (no SLURM_ARRAY_TASK_ID)",
            "use --shard auto under torchrun and srun, or say the shard: --shard k/n",
        )
    divisions = [division for division in (part, tasks, ranks) if division is not None]
    several = environment.get("SLURM_NTASKS", "1")
    if not divisions and several not in ("", "1"):
        raise UsageError(
            f"--shard auto: this Slurm job has {several} tasks, but srun has not started this process",
            "begin the command with srun, or submit an array",
        )
    index, count = 0, 1
    for division in divisions:
        index, count = index * division.count + division.index, count * division.count
    local = next((division.local for division in reversed(divisions) if division.local is not None), None)
    chosen = ", ".join(division.what for division in divisions)
    launched = any(division is not part for division in divisions)
    return Shard(index, count, chosen or "neither torchrun nor Slurm divides the work", local, launched)
