"""How torchrun and Slurm divide the work among processes, read from their environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from caa_cli.errors import UsageError

_RANKS = ("RANK", "WORLD_SIZE")
_TASKS = tuple(f"SLURM_{name}" for name in ("PROCID", "NTASKS", "STEP_ID", "STEP_NUM_TASKS"))
_ARRAY = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "STEP", "COUNT"))


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that determine the shard: setting just these elsewhere gives the same shard.

    Those of an ignored division are left out, since the variable that made it ignored may differ there.
    """
    ranks, tasks = processes(environment)
    read = [*(_RANKS if ranks else ()), *(_TASKS if tasks else ()), *_ARRAY]
    if ranks and tasks:
        read.append("GROUP_WORLD_SIZE")  # only decides between torchrun and srun
    return {name: environment[name] for name in read if environment.get(name)}


@dataclass(frozen=True)
class Division:
    """One level of the division: this process is the `index`-th of `count`. local: its number on its machine."""

    what: str
    index: int
    count: int
    local: int | None = None


def torchrun(environment: Mapping[str, str]) -> Division | None:
    """This process among those of torchrun on all machines; None outside of one. Raises UsageError for bad values."""
    if not environment.get("RANK") or not environment.get("WORLD_SIZE"):
        return None
    rank, count = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if rank >= count:
        raise UsageError(
            f"the environment says RANK={rank} of WORLD_SIZE={count}: there is no such process",
            "start the processes with torchrun; or leave it out: env -u RANK caa …",
        )
    local = _number(environment, "LOCAL_RANK") if environment.get("LOCAL_RANK") else None
    return Division(f"process {rank} of torchrun's {count}", rank, count, local)


def srun(environment: Mapping[str, str]) -> Division | None:
    """This task among those of the srun step; None outside of one. Raises UsageError for bad values."""
    tasks = "SLURM_STEP_NUM_TASKS" if environment.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    if environment.get(tasks, "1") in ("", "1") or not environment.get("SLURM_PROCID"):
        return None
    if environment.get("ENVIRONMENT") == "BATCH" and not environment.get("SLURM_STEP_ID"):
        return None  # the batch script itself: it has the number 0, but srun did not start it
    task, count = _number(environment, "SLURM_PROCID"), _number(environment, tasks)
    if task >= count:
        raise UsageError(
            f"the environment says SLURM_PROCID={task} of {tasks}={count}: there is no such task",
            "say the shard: --shard k/n",
        )
    # If Slurm gives each task one GPU, the task sees only that one, so its number does not choose a GPU.
    alone = re.fullmatch(r"[^,]+", environment.get("CUDA_VISIBLE_DEVICES", ""))
    local = _number(environment, "SLURM_LOCALID") if environment.get("SLURM_LOCALID") and not alone else None
    return Division(f"task {task} of srun's {count}", task, count, local)


def processes(environment: Mapping[str, str]) -> tuple[Division | None, Division | None]:
    """The divisions by torchrun and srun that count; None for srun if torchrun's ranks already span its tasks."""
    ranks, tasks = torchrun(environment), srun(environment)
    if ranks is not None and environment.get("GROUP_WORLD_SIZE", "") != "1":
        tasks = None
    return ranks, tasks


def array(environment: Mapping[str, str], submitted: range | None, text: str) -> Division | None:
    """This task among those of a Slurm job array; None outside of one. submitted: the array's tasks, from --shard.

    Raises UsageError for bad values, and where the array's tasks can't be known.
    """
    if not environment.get("SLURM_ARRAY_TASK_ID"):
        return None
    task = _number(environment, "SLURM_ARRAY_TASK_ID")
    if submitted is not None:
        if task not in submitted:
            raise UsageError(
                f"--shard {text}: task {task} is none of the {len(submitted)} tasks of such an array",
                "say the array as it was first submitted: auto/8 for 0-7, auto/10-17, auto/0-14:2",
            )
        return Division(f"task {task} of a Slurm array of {text[5:]}", submitted.index(task), len(submitted))
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
    return Division(f"task {task} of the Slurm array {first}-{last}{every}", tasks.index(task), count)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(
            f"the environment says {name}={text!r}, which is no number",
            # torchrun's variables are also checked against --shard k/n, so naming the shard does not help.
            f"unset {name}" + (", or say --shard k/n" if name.startswith("SLURM_") else f": env -u {name} caa …"),
        )
    return int(text)
