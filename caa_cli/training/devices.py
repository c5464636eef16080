"""Data-parallel training in several processes, as started by `torchrun`: one per device."""

from __future__ import annotations

import gc
import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch import distributed as dist

from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime.device import process_device
from caa_cli.runtime.launchers import torchrun
from caa_cli.runtime.words import counted


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, the number of processes, and the rank on this machine; 0, 1, 0 without torchrun."""

    rank: int = 0
    count: int = 1
    local: int = 0
    _reduced: list[Tensor] = field(default_factory=list, compare=False, repr=False)  # until the group has ended

    @staticmethod
    def from_environment() -> Ranks:
        """The ranks that torchrun sets in the environment. Raises UsageError for invalid values."""
        division = torchrun(os.environ)
        if division is None or division.count == 1:
            return Ranks()
        if not os.environ.get("MASTER_ADDR"):
            raise UsageError(
                f"the environment says RANK={division.index} of WORLD_SIZE={division.count}, but has no MASTER_ADDR",
                "start the processes with torchrun; or, to train in one: env -u RANK caa …",
            )
        return Ranks(division.index, division.count, division.local or 0)

    def device(self, asked: torch.device) -> torch.device:
        """The device of this process: a separate GPU for each process of the machine, if `asked` is a GPU."""
        if self.count == 1 or asked.type != "cuda":
            return asked
        if asked.index not in (None, 0):
            raise UsageError(
                f"--device {asked} is one GPU for {counted(self.count, 'process')}", "use --device auto or cuda"
            )
        return process_device(self.local)

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """In the process group: enters when all processes are there, and ends its threads on leaving.

        Raises CaaError where they can't meet. The threads end with the last reference to the group. One of gloo's
        that still runs when Python ends, and releases a tensor then, aborts the process.
        """
        if self.count == 1:
            yield
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Imported later, as DistributedDataParallel does, it would hold the group for good, as its default arguments.
        importlib.import_module("torch.distributed.nn")
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT', '')}"
            raise CaaError(
                f"the processes of this training can't meet at {place} ({str(error).splitlines()[0]})",
                "start all of them with torchrun; if the port is taken, choose another: torchrun --master-port",
            ) from error
        try:
            yield
        finally:
            dist.destroy_process_group()
            gc.collect()
            self._reduced.clear()

    def wrapped(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model with gradients averaged over all processes."""
        if self.count == 1:
            return model
        # Buffers are averaged at the end of an epoch (`mean_buffers`): broadcast before every forward pass, they
        # would be overwritten between the passes of a method with several.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer PyTorch has another name for `broadcast_buffers`
            return nn.parallel.DistributedDataParallel(
                model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
            )

    def mean_buffers(self, model: nn.Module) -> None:
        """Average the running statistics, which each process gathers on its part of the batches."""
        if self.count > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    self._reduce(buffer, dist.ReduceOp.SUM)
                    buffer.div_(self.count)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, equal in each; `values` is overwritten."""
        if self.count > 1:
            self._reduce(values, dist.ReduceOp.SUM)
        return values

    def agree(self, number: int, device: torch.device) -> bool:
        """Whether `number` is equal in all processes."""
        if self.count == 1:
            return True
        least, most = (torch.tensor(number, device=device) for _ in range(2))
        self._reduce(least, dist.ReduceOp.MIN)
        self._reduce(most, dist.ReduceOp.MAX)
        return bool(least == most)

    def part(self, positions: Tensor) -> Tensor:
        """This process's part of a batch; parts have equal sizes, so a few last positions may be left out."""
        if self.count == 1:
            return positions
        size = len(positions) // self.count
        return positions[self.rank * size : (self.rank + 1) * size]

    def _reduce(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        """Reduce in place over all processes, and keep the tensor.

        A thread of gloo's that is the last to hold a tensor of Python's needs the interpreter's lock to free it, and
        PyTorch 2.6 waits for that thread with the lock held when the group ends: the process would hang for good.
        """
        self._reduced.append(values)
        dist.all_reduce(values, operation)
