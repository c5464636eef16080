"""The memory that this process holds, and the limit of --max-memory.

On a CPU the limit applies to the resident memory of the process, with Python, PyTorch and the images. Nothing
enforces it, so chunk sizes are chosen to keep to it (`tuning.memory_fit`). On a GPU PyTorch's allocator refuses what
exceeds it, and chunks are halved as after any out-of-memory error.
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

# In glibc's malloc.h. Setting the threshold also ends its automatic growth.
_M_MMAP_THRESHOLD = -3


def resident() -> int:
    """Bytes of physical memory that this process holds; its peak, where the system reports only that."""
    return _status("VmRSS") or peak_resident()


def peak_resident() -> int:
    """The largest value that `resident` ever had, in bytes."""
    # getrusage may include what the parent process held when it started this one; the kernel's VmHWM does not.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or (peak if sys.platform == "darwin" else 1024 * peak)


def memory_held(device: torch.device) -> int:
    """The most bytes that the device's allocator has held; on a CPU `peak_resident`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()


def limit_device(device: torch.device, limit: int) -> None:
    """Make the device's allocator refuse more than `limit` bytes. Raises UsageError for an unsupported device.

    On a CPU this only makes the allocator return freed memory at once. On a GPU the CUDA context (about half a
    gigabyte) comes on top.
    """
    if device.type == "cpu":
        _give_back_at_once()
    elif device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        # PyTorch takes `cuda` without a number as the current device.
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), index)
    else:
        raise UsageError(
            f"--max-memory can't be kept on {device}", "leave it out, or use --device cpu or an NVIDIA GPU"
        )


# Error messages of layers below PyTorch's allocator when memory runs out.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "could not create a memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device, or this machine, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in _OUT_OF_MEMORY)


def _give_back_at_once() -> None:
    """Make glibc return freed memory at once; other C libraries are left as they are.

    By default glibc keeps it in pieces that may not fit the next tensors: ResNet-50 took twice the memory of its
    tensors.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**18)


def _status(name: str) -> int:
    """A field of /proc/self/status, in bytes; 0 if there is none, as on macOS."""
    try:
        field = re.search(
            rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE
        )
    except (OSError, UnicodeDecodeError):
        return 0
    return 1024 * int(field[1]) if field else 0
