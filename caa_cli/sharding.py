"""Which share of the images a process works on: said by --shard, or read off what torchrun and Slurm tell it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caa_cli.errors import UsageError

# What a choice is read from: the same shard can be had again by setting these.
VARIABLES = (
    *("RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE"),
    *(f"SLURM_{name}" for name in ("PROCID", "NTASKS", "STEP_ID", "STEP_NUM_TASKS")),
    *(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT")),
)


@dataclass(frozen=True)
class Shard:
    """Every `count`-th example, from the `index`-th on.

    chosen: by what, in words, where it was not the user.  local: which process of its machine, and so which GPU.
    launched: by torchrun or srun, which may end all the others where one ends with an error.
    """

    index: int = 0
    count: int = 1
    chosen: str | None = None
    local: int | None = None
    launched: bool = False

    def __str__(self) -> str:
        return f"shard {self.index} of {self.count}"

    def own(self, path: Path) -> Path:
        """attack.shard-1-of-8.json for attack.json: all shards have one command line, and so one --output."""
        return path.with_name(f"{path.stem}{self._mark}{path.suffix}") if self.count > 1 else path

    @property
    def _mark(self) -> str:
        return f".shard-{self.index}-of-{self.count}"

    def sibling(self, path: Path, index: int) -> Path:
        """Another shard's file, where `path` is this one's own; else `path`."""
        return path.with_name(path.name.replace(self._mark, Shard(index, self.count)._mark))

    def check_siblings(self, path: Path) -> None:
        """Raises UsageError where shards of another number have left results beside this one's `path`."""
        first, _, last = path.name.rpartition(self._mark)
        alike = re.compile(rf"{re.escape(first)}\.shard-\d+-of-(\d+){re.escape(last)}(\.jsonl)?")
        for name in sorted(entry.name for entry in path.parent.iterdir()):
            found = alike.fullmatch(name)
            if found and int(found[1]) != self.count:
                raise UsageError(
                    f"{path.with_name(name)} is one of {found[1]} shards, but this is {self} ({self.chosen})",
                    f"for a part of a Slurm array that is sent again: --shard auto/{found[1]} (the array as it was "
                    "first); for another run: another --output, or --overwrite",
                )

    @staticmethod
    def parse(text: str, environment: Mapping[str, str]) -> Shard:
        """`k/n`, `auto`, or `auto/A`, where A is the Slurm array as it was first submitted: 8, 10-17 or 0-14:2.

        Raises UsageError for what is none of them, and where the environment says something else.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match:
            return _said(int(match[1]), int(match[2]), environment)
        match = re.fullmatch(r"auto(?:/(?:(\d+)|(\d+)-(\d+)(?::(\d+))?))?", text)
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
        return _found(array, text, environment)


@dataclass(frozen=True)
class _Division:
    """One way in which the work is divided: this process is the `index`-th of `count`."""

    what: str
    index: int
    count: int
    local: int | None = None


def _said(index: int, count: int, environment: Mapping[str, str]) -> Shard:
    if not 0 <= index < count:
        raise UsageError(
            f"--shard {index}/{count}: there is no shard {index} of {count}",
            f"shards are numbered from 0: use 0/{count} to {max(count - 1, 0)}/{count}",
        )
    ranks = _torchrun(environment)
    if ranks is None or ranks.count == 1:
        return Shard(index, count)
    if (ranks.index, ranks.count) != (index, count):
        problem = (
            f"torchrun has started {ranks.count} processes, and each of them would work on all the images"
            if count == 1
            else f"--shard {index}/{count}, but this is {ranks.what}"
        )
        raise UsageError(problem, "use --shard auto; or, if they are no shards of this run: env -u RANK caa …")
    return Shard(index, count, None, ranks.local, launched=True)


def _found(array: range | None, text: str, environment: Mapping[str, str]) -> Shard:
    """The array's tasks are divided among srun's, and those among torchrun's processes."""
    ranks, tasks, part = _torchrun(environment), _srun(environment), _array(environment, array, text)
    if array is not None and part is None:
        raise UsageError(
            f"--shard {text} is about a Slurm array, but there is none here (no SLURM_ARRAY_TASK_ID)",
            "use --shard auto under torchrun and srun, or say the shard: --shard k/n",
        )
    if ranks is not None and tasks is not None and environment.get("GROUP_WORLD_SIZE", "") != "1":
        tasks = None  # one torchrun over all of them, which has counted them already
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


def _torchrun(environment: Mapping[str, str]) -> _Division | None:
    if not environment.get("RANK") or not environment.get("WORLD_SIZE"):
        return None
    rank, count = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if rank >= count:
        raise UsageError(
            f"the environment says RANK={rank} of WORLD_SIZE={count}: there is no such process",
            "start the processes with torchrun; or leave it out: env -u RANK caa …",
        )
    local = _number(environment, "LOCAL_RANK") if environment.get("LOCAL_RANK") else None
    return _Division(f"process {rank} of torchrun's {count}", rank, count, local)


def _srun(environment: Mapping[str, str]) -> _Division | None:
    tasks = "SLURM_STEP_NUM_TASKS" if environment.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    if environment.get(tasks, "1") in ("", "1") or not environment.get("SLURM_PROCID"):
        return None
    if environment.get("ENVIRONMENT") == "BATCH" and not environment.get("SLURM_STEP_ID"):
        return None  # the batch script itself, which is no task of srun's although it has a number like the first
    task, count = _number(environment, "SLURM_PROCID"), _number(environment, tasks)
    if task >= count:
        raise UsageError(
            f"the environment says SLURM_PROCID={task} of {tasks}={count}: there is no such task",
            "say the shard: --shard k/n",
        )
    # Where Slurm has given each task a GPU of its own, a task sees that one alone, whatever its number.
    alone = re.fullmatch(r"[^,]+", environment.get("CUDA_VISIBLE_DEVICES", ""))
    local = _number(environment, "SLURM_LOCALID") if environment.get("SLURM_LOCALID") and not alone else None
    return _Division(f"task {task} of srun's {count}", task, count, local)


def _array(environment: Mapping[str, str], submitted: range | None, text: str) -> _Division | None:
    """The position among the tasks of a Slurm job array; `submitted`: its tasks, as the user says."""
    if not environment.get("SLURM_ARRAY_TASK_ID"):
        return None
    task = _number(environment, "SLURM_ARRAY_TASK_ID")
    if submitted is not None:
        if task not in submitted:
            raise UsageError(
                f"--shard {text}: task {task} is none of the {len(submitted)} tasks of such an array",
                "say the array as it was first submitted: auto/8 for 0-7, auto/10-17, auto/0-14:2",
            )
        return _Division(f"task {task} of a Slurm array of {text[5:]}", submitted.index(task), len(submitted))
    hint = "say the array as it was first submitted: --shard auto/8 for 0-7, auto/10-17, auto/0-14:2; or --shard k/n"
    missing = [name for name in ("COUNT", "MIN", "MAX") if not environment.get(f"SLURM_ARRAY_TASK_{name}")]
    if missing:
        raise UsageError(f"--shard auto: SLURM_ARRAY_TASK_{missing[0]} is not set", hint)
    count, first, last = (_number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("COUNT", "MIN", "MAX"))
    if count == 1:
        raise UsageError(
            f"--shard auto: task {task} is alone in its Slurm array, which may be a part of a larger one sent again: "
            "how many shards there are can't be known",
            hint,
        )
    step = _number(environment, "SLURM_ARRAY_TASK_STEP") if environment.get("SLURM_ARRAY_TASK_STEP") else 1
    tasks = range(first, last + 1, max(step, 1))
    if len(tasks) != count or task not in tasks:
        raise UsageError(
            f"--shard auto: the Slurm array has {count} tasks from {first} to {last} at uneven distances, so which "
            f"of them is task {task} can't be known",
            hint,
        )
    every = f":{step}" if step > 1 else ""
    return _Division(f"task {task} of the Slurm array {first}-{last}{every}", tasks.index(task), count)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"the environment says {name}={text!r}, which is no number", f"unset {name}, or say --shard k/n"
        )
    return int(text)
