"""Reading untrusted files in a child process, which confines their use of memory, time and stack.

On Linux the child is forked, which takes some hundredths of a second. It uses one thread and no GPU, and exits
without cleanup, so that it needs none of the locks and threads that a fork does not copy. Elsewhere (Apple's
libraries don't support forking) it is a new interpreter, which takes some seconds to import PyTorch.
"""

from __future__ import annotations

import faulthandler
import fcntl
import importlib
import math
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from caa_cli.errors import CaaError
from caa_cli.models.plain import pack, unpack
from caa_cli.runtime.memory import is_out_of_memory

# Address space allowed in addition to what the process holds: for any file, and per byte of the file.
_BYTES, _BYTES_PER_BYTE = 2**30, 2
# Reading takes about a second per gigabyte. On a busy machine the wall-clock time is a multiple (`_WAIT`) of it.
_SECONDS, _SECONDS_PER_BYTE, _WAIT = 5.0, 2e-8, 4
# What a new interpreter may take to import PyTorch, from a cold disk.
_START = 120.0
# The descriptions of 20,000 tensors take 25 MB at most, including names of a thousand characters.
_MOST_HEADER = 2**26
_MEMORY, _DAMAGED = "memory", "damaged"

Reader = Callable[[Path, bytes], Any]


def read_confined(
    read: Reader, path: Path, content: bytes, damaged: CaaError, fresh: bool = sys.platform != "linux"
) -> Any:
    """The result of `read(path, content)`, evaluated in a child process; it has to be plain data (see `plain`).

    read: a module-level function. damaged: raised for any exception of `read` other than CaaError.
    fresh: use a new interpreter instead of a fork. Raises CaaError, also if the child exceeded a limit or died.
    """
    deadline = time.monotonic() + _WAIT * _seconds(len(content)) + fresh * _START
    try:
        pid, source = (_spawn if fresh else _fork)(read, path, content)
    except OSError as error:
        raise CaaError(
            f"no process can be started to read {path} ({error.strerror})", "close other programs, and try again"
        ) from error
    answer: Any = None
    try:
        with suppress(EOFError, TimeoutError):
            answer = _receive(source, deadline, len(content))
    finally:
        os.close(source)
        status = _end(pid, 0 if answer is not None else 2)
    if answer is None:
        raise _died(path, len(content), status, time.monotonic() > deadline)
    if "value" in answer:
        return answer["value"]
    if answer["failure"] == _MEMORY:
        raise _too_much_memory(path, len(content))
    raise damaged if answer["failure"] == _DAMAGED else CaaError(*answer["failure"])


def _fork(read: Reader, path: Path, content: bytes) -> tuple[int, int]:
    """(process id of the child, file descriptor to read its answer from)."""
    source, sink = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking a multi-threaded process
        pid = os.fork()
    if pid == 0:
        try:
            os.closerange(3, sink)
            os.closerange(max(3, sink + 1), 2**16)
            _serve(read, path, content, sink)
        finally:
            os._exit(1)
    os.close(sink)
    return pid, source


def _spawn(read: Reader, path: Path, content: bytes) -> tuple[int, int]:
    """As `_fork`, with a new interpreter."""
    (child_end, parent_end), (source, sink) = os.pipe(), os.pipe()
    script = f"import sys; sys.path[:] = {sys.path!r}; from caa_cli.models.confined import main; main()"
    # -P: a torch.py in the current folder must not be imported as PyTorch.
    words = [sys.executable, "-P", "-c", script, read.__module__, read.__name__, str(path)]
    places = [(os.POSIX_SPAWN_DUP2, child_end, 0), (os.POSIX_SPAWN_DUP2, sink, 1)]
    try:
        pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=places)
    finally:
        os.close(child_end)
        os.close(sink)
    with suppress(BrokenPipeError), os.fdopen(parent_end, "wb") as pipe:
        pipe.write(content)
    return pid, source


def main() -> NoReturn:
    """The entry point of the new interpreter: reads the content from stdin and writes the answer to stdout."""
    try:
        module, name, path = sys.argv[1:]
        read = getattr(importlib.import_module(module), name)
        _serve(read, Path(path), sys.stdin.buffer.read(), os.dup(1))
    finally:
        os._exit(1)


def _serve(read: Reader, path: Path, content: bytes, sink: int) -> NoReturn:
    """The child's work: evaluate `read` under limits, write the packed answer to `sink`, and exit."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.disable()  # the parent reports a crash
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in {1, 2} - {sink}:
        os.dup2(nowhere, stream)
    torch.set_num_threads(1)
    _limit(len(content))
    try:
        answer = pack({"value": read(path, content)}, len(content))
    except CaaError as error:
        answer = pack({"failure": [error.problem, error.hint, error.exit_code]}, 0)
    except Exception as error:  # whatever the first wrong byte leads to
        answer = pack({"failure": _MEMORY if is_out_of_memory(error) else _DAMAGED}, 0)
    length = len(answer[0]).to_bytes(8, "little")
    for part in (memoryview(length), *answer):
        rest = part
        while rest:
            rest = rest[os.write(sink, rest) :]
    os._exit(0)


def _limit(size: int) -> None:
    """Set the resource limits of this process; macOS enforces only the time."""
    with suppress(OSError):  # no /proc
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + _BYTES + _BYTES_PER_BYTE * size)
    _lower(resource.RLIMIT_CPU, math.ceil(time.process_time() + _seconds(size)))
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, limit: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(which, (limit, hard))


def _seconds(size: int) -> float:
    """Seconds of processor time allowed for a file of `size` bytes."""
    return _SECONDS + _SECONDS_PER_BYTE * size


def _receive(source: int, deadline: float, most: int) -> Any:
    """The child's answer. Raises EOFError if it is incomplete or invalid, TimeoutError at the deadline."""
    with suppress(AttributeError, OSError):  # Linux only, and only up to a system limit
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, 2**20)
    ready = select.poll()
    ready.register(source, select.POLLIN)

    def fill(buffer: memoryview) -> None:
        while buffer:
            if not ready.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
                raise TimeoutError
            count = os.readv(source, [buffer])
            if count == 0:
                raise EOFError
            buffer = buffer[count:]

    length = bytearray(8)
    fill(memoryview(length))
    if int.from_bytes(length, "little") > _MOST_HEADER:
        raise EOFError
    header = bytearray(int.from_bytes(length, "little"))
    fill(memoryview(header))
    try:
        return unpack(header, fill, most)
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise EOFError from error


def _end(pid: int, patience: float) -> int:
    """The exit status of the child, which is killed unless it exits within `patience` seconds."""
    with suppress(ChildProcessError):  # SIGCHLD is ignored, so the child is reaped automatically
        until = time.monotonic() + patience
        while time.monotonic() < until:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]
    return 0


_MADE = "it is damaged, or made to do harm"
_ELSEWHERE = "get it again from where it comes from, best as safetensors"


def _died(path: Path, size: int, status: int, late: bool) -> CaaError:
    killer = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if late or killer == signal.SIGXCPU:
        return CaaError(
            f"reading {path} takes longer than any checkpoint of {size:,} bytes does: {_MADE}", _ELSEWHERE
        )
    if killer == signal.SIGKILL:  # by the kernel, for lack of memory
        return _too_much_memory(path, size)
    how = f" ({signal.Signals(killer).name})" if killer else ""
    return CaaError(f"reading {path} makes PyTorch crash{how}: {_MADE}", _ELSEWHERE)


def _too_much_memory(path: Path, size: int) -> CaaError:
    return CaaError(f"reading {path} takes more memory than a checkpoint of {size:,} bytes can: {_MADE}", _ELSEWHERE)
