"""--max-memory is kept, and whoever asks for too little is told what would do."""

from __future__ import annotations

import json
import mmap
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import CHEAP, ENVIRONMENT, assert_clean_error, assert_clean_text, caa, read_strict, start, timeless

from caa_cli.config.sizes import parse_size, show_size
from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime import memory
from caa_cli.runtime.device import numeric_mode, open_device
from caa_cli.runtime.memory import limit_device, peak_resident, resident

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's own account")

RUN = """
import sys; sys.argv[0] = "caa"
from caa_cli.cli.app import main
from caa_cli.runtime.memory import peak_resident
try: main()
finally: print("peak", peak_resident(), file=sys.stderr)
"""


def alone(*words: str | Path) -> tuple[int, str, int]:
    """(exit code, stderr, peak resident memory) of a command in a process of its own."""
    command = [sys.executable, "-c", RUN, *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=ENVIRONMENT)
    *lines, last = done.stderr.splitlines()
    return done.returncode, "\n".join(lines), int(last.split()[1])


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * 2**30), ("800MB", 800_000_000), ("1.5 gb", 1_500_000_000), ("1000000", 1_000_000), ("2kib", 2048)],
)
def test_amounts_of_memory_are_read(text: str, size: int):
    assert parse_size(text, "--max-memory") == size


@pytest.mark.parametrize("text", [" ", "lots", "-1GB", "4 G", "GiB", "1e9", "nan"])
def test_what_is_no_amount_is_refused(text: str, tmp_path):
    result = caa("attack", "--checkpoint", "demo", "--max-memory", text, "--output", tmp_path / "a.json")
    assert_clean_error(result, 2, "--max-memory", "4GiB")


def test_nothing_at_all_is_refused(tmp_path):
    result = caa("attack", "--checkpoint", "demo", "--max-memory", "0MB", "--output", tmp_path / "a.json")
    assert_clean_error(result, 2, "--max-memory")


def test_amounts_are_shown():
    assert [show_size(size) for size in (850_000_000, 2**31, 2 * 10**10)] == ["850 MB", "2147 MB", "20.00 GB"]


def test_the_process_knows_what_it_holds():
    before = resident()
    assert 10**7 < before <= peak_resident()
    # Of the system itself: malloc may take what earlier tests freed and it kept, which is resident already.
    with mmap.mmap(-1, 200_000_000) as held:
        held[::4096] = bytes(1 + (len(held) - 1) // 4096)
        assert resident() > before + 150_000_000
    assert peak_resident() > before + 150_000_000


@linux
def test_too_little_says_what_would_do_and_that_does(tmp_path):
    words = ["attack", *CHEAP, "--limit", "1", "--chunk-size", "auto", "--quiet", "--output", tmp_path / "a.json"]
    code, stderr, _ = alone(*words, "--max-memory", "100MB")
    assert code == 1
    assert_clean_text(stderr, "--max-memory 100 MB is too little", "--max-memory ")
    enough = stderr.split("try:")[1].split()[1].rstrip(",")
    code, stderr, peak = alone(*words, "--max-memory", enough)
    assert code == 0, stderr
    assert peak <= parse_size(enough, "")
    assert read_strict(tmp_path / "a.json")["config"]["max_memory"] == parse_size(enough, "")


@linux
def test_a_limit_changes_no_result(tmp_path):
    """A chunk as large as asked for would take more."""
    words = ["attack", *CHEAP, "--limit", "1", "--samples", "8000", "--chunk-size", "8000", "--iterations", "3"]
    code, _, peak = alone(*words, "--output", tmp_path / "free.json")
    assert code == 0
    # What PyTorch alone holds differs by 200 MB between machines, so the limit is what a small chunk would do with.
    _, refused, _ = alone(*words, "--max-memory", "100MB", "--output", tmp_path / "tight.json")
    enough = refused.split("try:")[1].split()[1].rstrip(",")
    limit = parse_size(enough, "")
    assert peak > limit
    code, stderr, peak = alone(*words, "--max-memory", enough, "--output", tmp_path / "tight.json")
    assert code == 0, stderr
    assert "to stay below --max-memory" in stderr
    assert peak <= limit
    free, tight = (read_strict(tmp_path / f"{name}.json") for name in ("free", "tight"))
    assert free["fingerprint"] == tight["fingerprint"]
    for one, other in zip(timeless(free), timeless(tight), strict=True):
        assert one["outcome"] == other["outcome"]
        assert one["certified_radius"] == other["certified_radius"]


BIG_IMAGES = """
import json, torch
from torch import nn
from caa_cli.runtime.memory import limit_device, peak_resident, resident
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio
from caa_cli.tuning.memory_fit import largest_chunk
limit = resident() + 380_000_000
network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(16, 5))
classifier = SmoothedClassifier(network, sigma=0.5, num_classes=5, input_shape=(3, 200, 200))
limit_device(classifier.device, limit)
classifier.votes_chunk = classifier.gradient_chunk = largest_chunk(classifier, limit, gradients=True)
x, keys = torch.rand(1, 3, 200, 200), [Key(0, 0, Purpose.SEARCH)]
found = [limit, classifier.gradient_chunk]
chunk = classifier.gradient_chunk
for chunks, parts in ((2, 1), (4, 1), (2, 4)):
    classifier.gradient_chunk //= parts
    classifier.keyed_votes(x, keys, chunks * chunk)
    classifier.surrogate(x, torch.tensor([0]), keys, chunks * chunk, LogRatio())
    found.append(peak_resident())
print(json.dumps(found))
"""


@linux
def test_large_images_stay_below_the_limit_however_many_samples():
    """About 13 MB a sample: four chunks would not fit. All gradients fill their chunks, one after the other in one
    process; the last keeps several chunks' graphs for its pilot."""
    command = [sys.executable, "-c", BIG_IMAGES]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    limit, chunk, few, many, waiting = json.loads(done.stdout)
    assert 4 <= chunk <= 40
    assert few <= many <= waiting <= limit  # each is the most that was held so far
    assert many <= 1.05 * few


def test_a_gpu_gets_its_share_of_the_whole(monkeypatch):
    class Properties:
        total_memory = 16 * 10**9

    said = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Properties)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *share: said.append(share))
    limit_device(torch.device("cuda:1"), 4 * 10**9)
    limit_device(torch.device("cuda:1"), 10**12)
    assert said == [(0.25, 1), (1.0, 1)]
    with pytest.raises(UsageError, match="--max-memory"):
        limit_device(torch.device("mps"), 10**9)


FILLED = RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")
REFUSED = torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 MiB")


@pytest.mark.parametrize(
    ("error", "share", "limited"), [(FILLED, 0.1, False), (REFUSED, 1.0, False), (REFUSED, 0.1, True)]
)
def test_a_gpu_that_others_have_filled_and_too_low_a_limit_are_told_apart(monkeypatch, error, share, limited):
    def full(*shape, device):
        raise error

    monkeypatch.setattr(torch, "zeros", full)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: share)
    with pytest.raises(CaaError) as caught:
        open_device(torch.device("cuda:0"))
    assert re.fullmatch(r"cuda:0 can't be used: CUDA (error: )?out of memory\.?", caught.value.problem)
    assert "--device" in (caught.value.hint or "")
    assert ("--max-memory" in (caught.value.hint or "")) == limited


def test_a_gpu_that_is_filled_already_when_it_is_limited_is_said_too(tmp_path, monkeypatch):
    """The limit is set before anything is on the device: on a GPU that is its first use."""

    def full(device, limit):
        raise FILLED

    monkeypatch.setattr("caa_cli.run.session.limit_device", full)
    words = ("attack", "--checkpoint", "demo", "--device", "cpu", "--max-memory", "4GiB", "--dry-run")
    assert_clean_error(caa(*words), 1, "can't be used: CUDA error: out of memory", "others may be using it")


@pytest.mark.parametrize(("error", "expected"), [("CUDA error: out of memory", True), ("size mismatch", False)])
def test_what_counts_as_no_memory(error: str, expected: bool):
    assert memory.is_out_of_memory(RuntimeError(error)) is expected


def test_tf32_needs_a_gpu_that_has_it(tmp_path, monkeypatch):
    words = ("attack", "--checkpoint", "demo", "--device", "cpu", "--dtype", "tf32", "--dry-run")
    assert_clean_error(caa(*words, "--output", tmp_path / "a.json"), 2, "--dtype tf32", "--dtype float32")
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old one")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(UsageError, match="Ampere"):
        numeric_mode("tf32", gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for name, dtype, allowed in (("tf32", torch.float32, True), ("float32", torch.float32, False)):
        assert numeric_mode(name, gpu) == dtype
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is allowed
    # The last one leaves the process as it was.
    assert numeric_mode("bfloat16", torch.device("cpu")) == torch.bfloat16


_LITTLE = """import resource, sys
from caa_cli.cli import app
from pathlib import Path
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**26, -1))
"""


@linux
def test_too_little_memory_to_load_pytorch_is_one_message(tmp_path):
    """As under ulimit -v, which counts all that is mapped: PyTorch's libraries take gigabytes."""
    words = ["attack", "--checkpoint", "demo", "--limit", "1", "--output", tmp_path / "a.json"]
    with start(*words, before=_LITTLE) as process:
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert_clean_text(stderr, "not enough memory", "ulimit -v")
