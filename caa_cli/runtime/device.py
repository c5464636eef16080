"""The device and the numeric mode that options name."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime.words import counted

# A mode, not a dtype: float32 with the products on a GPU rounded to TF32.
_TF32 = "tf32"


def resolve_device(name: str, local: int | None = None) -> torch.device:
    """`auto` is the first GPU, or the CPU. Raises UsageError or CaaError for a device that can't be used.

    local: which of this machine's processes asks, where there are several; it gets the GPU of that number, unless
    `name` says which.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local is not None:
        device = process_device(local, ", or name one for all: --device cuda:0")
        open_device(device)
        return device
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r} is no device", "use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):  # an Apple GPU has no float64, which sums of votes and gradients need
        raise UsageError(f"--device {name!r} is not supported", "use auto, cpu, cuda or cuda:1")
    _check_there(device)
    return device


def _check_there(device: torch.device, option: str = "--device ") -> None:
    """Raises CaaError for a GPU that PyTorch doesn't find."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type != "cuda" or (device.index or 0) < count:
        return
    hint = f"use {option}cpu, or {option}auto"
    if count:
        here = f"this machine has {counted(count, 'CUDA device')}"
    elif torch.backends.cuda.is_built():
        here = "PyTorch finds no GPU with a driver on this machine"
        hint = f"see what nvidia-smi and CUDA_VISIBLE_DEVICES say, or {hint}"
    else:
        here = "this PyTorch was built without CUDA"
        hint = f"install one that has it (pytorch.org), or {hint}"
    raise CaaError(f"{option}{device} is not there: {here}", hint)


def process_device(local: int, instead: str = "") -> torch.device:
    """The GPU of one of several processes of this machine. Raises UsageError where there are fewer GPUs.

    instead: what else one could do then.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if local >= count:
        raise UsageError(
            f"process {local} of this machine (LOCAL_RANK, counted from 0) has no GPU of its own: there are {count}",
            f"start no more processes than GPUs (torchrun --nproc-per-node){instead}",
        )
    return torch.device("cuda", local)


def open_device(device: torch.device, option: str = "--device ") -> None:
    """Uses it for the first time; a GPU will compute the same again from the same numbers, in the whole process.

    option: as messages name it.  Raises CaaError, as for a GPU that others have filled or keep to themselves.
    """
    # Some of cuDNN's ways to a gradient add up in an order of chance.
    torch.backends.cudnn.deterministic = True
    # PyTorch's thread for backward passes says so when it first multiplies matrices, and then does as it should.
    warnings.filterwarnings("ignore", "Attempting to run cuBLAS, but there was no current CUDA context")
    with opening(device, option):
        torch.zeros(1, device=device)


@contextmanager
def opening(device: torch.device, option: str = "--device ") -> Iterator[None]:
    """A context for what may be the first use of the device. Raises CaaError where it can't be used."""
    try:
        yield
    except RuntimeError as error:
        _check_there(device, option)
        first = str(error).splitlines()[0]
        hint = f"others may be using it (nvidia-smi says who); wait, or choose another with {option}cuda:1 or cpu"
        # Only PyTorch's own allocator knows of the limit.
        if isinstance(error, torch.OutOfMemoryError) and torch.cuda.get_per_process_memory_fraction(device) < 1.0:
            hint = f"raise --max-memory, or leave it out; where that is not the cause, {hint}"
        raise CaaError(f"{device} can't be used: {first}", hint) from error


def numeric_mode(name: str, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations for --dtype. Says for the whole process whether float32 products on a GPU
    are rounded to TF32: with `tf32` they are, with every other name they are not. Raises UsageError."""
    dtype = weights_dtype(name, device)
    _round_products(name == _TF32)
    return dtype


@contextmanager
def in_mode(name: str) -> Iterator[None]:
    """Rounds products on a GPU as this mode does, and then as before."""
    with rounding_kept():
        _round_products(name == _TF32)
        yield


@contextmanager
def rounding_kept() -> Iterator[None]:
    """A context after which products on a GPU are rounded as before it."""
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        yield
    finally:
        _round_products(before)


@contextmanager
def repeatable() -> Iterator[None]:
    """A context in which cuDNN computes the same again from the same numbers, and rounds convolutions to TF32 only
    where matrix products are, by `numeric_mode` or by the caller's choice. Then as before."""
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        stack.callback(setattr, cudnn, "deterministic", cudnn.deterministic)
        cudnn.deterministic = True
        # PyTorch refuses to say it after a caller has chosen by its newer switches (fp32_precision).
        with suppress(RuntimeError):
            convolutions, products = cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
            stack.callback(setattr, cudnn, "allow_tf32", convolutions)
            cudnn.allow_tf32 = products
        yield


def weights_dtype(name: str, device: torch.device, option: str = "--dtype") -> torch.dtype:
    """The dtype of weights and activations in this mode. Raises UsageError where the device has no such mode."""
    if name == _TF32 and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise UsageError(
            f"{option} tf32 needs an NVIDIA GPU of the Ampere generation or later; this is {describe_device(device)}",
            f"use {option} float32",
        )
    dtype: torch.dtype = torch.float32 if name == _TF32 else getattr(torch, name)
    return dtype


def _round_products(to_tf32: bool) -> None:
    # Not by matmul.allow_tf32: after a caller's set_float32_matmul_precision PyTorch takes that for a contradiction.
    torch.set_float32_matmul_precision("high" if to_tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = to_tf32


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({counted(threads, 'thread')})"
    return str(device)


def hardware(device: torch.device) -> str:
    """What a speed measured on the device belongs to: the make of the GPU, or that of the CPU and its threads."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory} bytes"
    if device.type == "cpu":
        return f"{_cpu_name()}, {torch.get_num_threads()} threads"
    return f"{device.type}, {platform.platform()}"


def has_bfloat16_units() -> bool:
    """Whether the CPU multiplies bfloat16 numbers itself, with AMX or AVX-512; False where the system doesn't say."""
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(_cpu_says("flags").split())


def _cpu_name() -> str:
    return _cpu_says("model name") or f"{platform.machine()} {platform.processor()}"


@cache
def _cpu_says(field: str) -> str:
    """What Linux says of the first processor under this name; empty where there is no such thing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")
