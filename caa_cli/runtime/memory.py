"""How much of the machine's memory this process holds, and the limits that it sets itself.

On a CPU a limit is about the resident memory of the process, Python, PyTorch and the images included; nothing
enforces it, so chunk sizes are chosen to keep to it (`smoothing.room`). On a GPU PyTorch's own allocator refuses what
goes beyond, and the engine halves its chunks as it does wherever memory runs out.
"""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from caa_cli.errors import UsageError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# The peak before the last `forget_peak`.
_forgotten = [0]
# In glibc's malloc.h. To set it also ends its growing by itself.
_M_MMAP_THRESHOLD = -3


def resident() -> int:
    """Bytes of physical memory that this process holds; where only its peak is known, that."""
    return _status("VmRSS") or _peak_by_resource()


def peak_resident() -> int:
    """The most that `resident` ever was, in bytes."""
    return max(_forgotten[0], recent_peak())


def recent_peak() -> int:
    """The most that it was since `forget_peak`, where the system can say that."""
    # getrusage may count what the parent process held when it started this one; the kernel's own mark does not.
    return _status("VmHWM") or _peak_by_resource()


def forget_peak() -> None:
    """Begins to watch for a new peak, on Linux; elsewhere the old one stands."""
    _forgotten[0] = peak_resident()
    with suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")


def limit_device(device: torch.device, limit: int) -> None:
    """Has the device's allocator refuse more than `limit` bytes. Raises UsageError where that can't be promised.

    On a CPU it only makes the allocator give back what is freed. On a GPU the CUDA context (about half a gigabyte)
    comes on top.
    """
    if device.type == "cpu":
        _give_back_at_once()
    elif device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        # The current device is what PyTorch takes a device without a number for.
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), index)
    else:
        raise UsageError(
            f"--max-memory can't be kept on {device}", "leave it out, or use --device cpu or an NVIDIA GPU"
        )


# What other layers than PyTorch's own allocator say when memory runs out.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "could not create a memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device, or this machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in _OUT_OF_MEMORY)


def _give_back_at_once() -> None:
    """Left alone, glibc keeps what was freed, in pieces that the next tensors may not fit in: a pass of ResNet-50 has
    taken twice what its tensors hold. Where the C library is another, its own ways stay."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**18)


def _status(name: str) -> int:
    """A field of the kernel's account of this process, in bytes; 0 where there is none, as on macOS."""
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return 0
    return 1024 * int(found[1]) if found else 0


def _peak_by_resource() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
