"""What the tests of the command line share: runs of about a second, in this process or in one of their own."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import typer
from typer.testing import CliRunner

from caa_cli.cli.app import app
from caa_cli.data.datasets import DEMO_FILE

# As in the processes below: sums are then added up in one order, and runs can be compared exactly.
torch.set_num_threads(1)
ENVIRONMENT = {**os.environ, "COLUMNS": "200"}

# Long steps find attacks on the demo within 8 of them: about 0.1 s per image.
CHEAP_SETTINGS = {
    "samples": 64,
    "iterations": 8,
    "step_min": 0.5,
    "step_max": 0.9,
    "verify_samples": 1000,
    "chunk_size": 256,
}
_OPTIONS = [word for name, value in CHEAP_SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
CHEAP = ["--checkpoint", "demo", *_OPTIONS, "--device", "cpu"]

# What the console script does, for a process of its own.
COMMAND = "import sys; sys.argv[0] = 'caa'; from caa_cli.cli.app import main; main()"

# torchrun, with as short a start and end as the command's.
_TORCHRUN = """from caa_cli.runtime import collector
collector.rest_at_exit()
with collector.importing():
    from torch.distributed.run import main
main()
"""

# Seconds after which nothing more will come, on a machine that does much else, too.
LONGEST = 600


@dataclass(frozen=True)
class Result:
    """What came of a command. output: both streams, in the order of their lines.  exception: SystemExit for a code
    that is not 0, and what nothing has caught."""

    exit_code: int
    stdout: str
    stderr: str
    output: str
    exception: BaseException | None


# As `main` makes it, but once: to make it takes 40 ms, and the tests run it thousands of times.
_CAA = typer.main.get_command(app)


def caa(*words: str | Path, env: dict[str, str] | None = None) -> Result:
    """Runs the command in this process."""
    code, exception = 0, None
    with CliRunner(env={"COLUMNS": "200", **(env or {})}).isolation() as streams:
        try:
            _CAA.main(list(map(str, words)), prog_name="caa")
        except SystemExit as end:
            code, exception = end.code or 0, end if end.code else None
        except Exception as error:
            code, exception = 1, error
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, stderr, output = (stream.getvalue().decode() for stream in streams)
    return Result(code, stdout, stderr, output, exception)


def attack(output: Path, *words: str | Path) -> dict[str, Any]:
    """A cheap attack on the demo, or another checkpoint, that has to succeed; its document."""
    cheap = CHEAP[2:] if "--checkpoint" in words else CHEAP
    result = caa("attack", *cheap, "--output", output, *words)
    assert result.exit_code == 0, result.output
    return read_strict(output)


def start(*words: str | Path, before: str = "", **settings: Any) -> subprocess.Popen[str]:
    """Runs the command in a process of its own, its output in pipes; before: what Python does first."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT, **settings}
    command = [sys.executable, "-c", before + COMMAND, *map(str, words)]
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that; these are to be interrupted.
    return subprocess.Popen(command, preexec_fn=_heed_interrupts, **settings)  # noqa: PLW1509


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_terminal(terminal: int) -> str:
    """All that comes from a pseudoterminal until its other end is closed; it is closed too."""
    shown = b""
    with suppress(OSError):  # so Linux says that the other end is closed
        while chunk := os.read(terminal, 4096):
            shown += chunk
    os.close(terminal)
    return shown.decode()


def torchrun(*words: str | Path, options: tuple[str, ...] = (), before: str = "") -> subprocess.Popen[str]:
    """The command in two processes, as torchrun starts them; before: what Python does first in each."""
    launcher = ["-c", _TORCHRUN, "--standalone", "--nproc-per-node", "2", *options, "--no-python"]
    command = [sys.executable, *launcher, sys.executable, "-c", before + COMMAND, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def once(condition: str, action: str) -> str:
    """What Python does first in a process that is to act once a condition holds: `forking.act_once`, in text.

    Both are Python, which may use os, signal, Path and in_journal.
    """
    return f"""import os, signal, sys
from pathlib import Path
sys.path.append({str(Path(__file__).parent)!r})
from forking import act_once
from support import in_journal
act_once(lambda: {condition}, lambda: {action})
"""


def rank_dies_once(rank: int, condition: str) -> str:
    """`once` for a rank of torchrun's that is killed, but not when it is started again."""
    first = f"os.environ['RANK'] == '{rank}' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'"
    return once(f"{first} and {condition}", "os.kill(os.getpid(), signal.SIGKILL)")


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """What the process and its children wrote to stdout and stderr; none of them is left, even where one hangs."""
    try:
        stdout, stderr = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        _, stderr = process.communicate()
        raise AssertionError(f"a process hangs; stderr so far:\n{stderr}") from None
    assert process.returncode == code, stderr
    return stdout, stderr


def wait_until(condition: Any, process: subprocess.Popen[str]) -> None:
    """Polls; fails where the process ends first, or nothing comes of it."""
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


def wait_for_stop(process: subprocess.Popen[str]) -> None:
    """Until the process has sent itself SIGSTOP."""
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, process)


def read_strict(path: Path) -> dict[str, Any]:
    return parse_strict(path.read_text(encoding="utf-8"))


def parse_strict(text: str) -> dict[str, Any]:
    """JSON by the standard: Python's reader would take NaN and Infinity too."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def journal_of(document: dict[str, Any]) -> list[bytes]:
    """The journal that such a run keeps until its document is written: a header line, and a line an example."""
    left_out = ("tool_version", "created", "status", "examples", "summary")
    header = {name: value for name, value in document.items() if name not in left_out}
    return [f"{json.dumps(entry)}\n".encode() for entry in (header, *document["examples"])]


def in_journal(output: Path) -> int:
    """How many images the journal of a run has by now."""
    journal = output.with_name(output.name + ".jsonl")
    return max(journal.read_bytes().count(b"\n") - 1, 0) if journal.exists() else 0


def timeless(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The examples without the time they took."""
    return [{name: value for name, value in example.items() if name != "seconds"} for example in document["examples"]]


def assert_clean_error(result: Result, code: int, problem: str, hint: str | None = None) -> None:
    """One message that a user can act on, and no traceback."""
    assert not isinstance(result.exception, Exception), repr(result.exception)
    assert result.exit_code == code, (result.exit_code, result.output)
    assert result.stdout == ""
    assert_clean_text(result.stderr, problem, hint)


def assert_clean_text(stderr: str, problem: str, hint: str | None = None) -> None:
    assert "Traceback" not in stderr, stderr
    assert "Exception ignored" not in stderr, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    assert problem in errors[0]
    if hint is not None:
        assert hint in next(line for line in stderr.splitlines() if line.startswith("try: ")), stderr


def demo_images() -> tuple[np.ndarray, np.ndarray]:
    """The demo's test split as the package ships it: (100, 28, 28) uint8 and (100,) labels."""
    with np.load(DEMO_FILE) as arrays:
        return arrays["test_images"], arrays["test_labels"]


def write_mnist(folder: Path) -> Path:
    """The demo's images as the four files of MNIST; returns the folder of those files."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images, labels = demo_images()
    for prefix in ("train", "t10k"):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 0x803, *images.shape) + images.astype(np.uint8).tobytes()
        )
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()
        )
    return raw
