"""Chunk sizes: found on a busy machine too, kept for the next run, and never trusted blindly."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from forking import fork
from networks import make_small
from support import ENVIRONMENT, attack, caa, read_strict, timeless
from torch import nn

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientSource
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.tuning.cache import cache_folder, kept, model_key, tuned
from caa_cli.tuning.sweep import Tuning, best_chunk, sweep, tune_chunks


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CAA_TUNING_CACHE", "on")
    monkeypatch.setenv("CAA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tuning"


class Measurement:
    """Stands for `tune_chunks`: takes no time, and counts how often it is asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, classifier: SmoothedClassifier, gradients: bool, most: int | None) -> Tuning:
        self.count += 1
        tuning = Tuning(dict.fromkeys(("votes", "gradient") if gradients else ("votes",), 256), False)
        tuning.apply(classifier, most)
        return tuning


@pytest.fixture
def measurement() -> Measurement:
    return Measurement()


def use(
    measurement: Measurement,
    anew: bool = False,
    most: int | None = None,
    arch: str = "small",
    dtype: str = "float32",
    gradients: bool = True,
    source: GradientSource | None = None,
) -> tuple[str, int]:
    classifier = make_small(gradients=source)
    origin = tuned(classifier, arch, dtype, gradients, anew, most, measurement)
    return origin, classifier.votes_chunk


def test_what_was_measured_is_kept_for_the_next_run(folder, measurement):
    assert use(measurement) == ("measured", 256)
    assert use(measurement) == ("cache", 256)
    assert use(measurement, most=100) == ("cache", 100), "a limit lowers the chunk"
    assert measurement.count == 1
    assert use(measurement, anew=True) == ("measured", 256)
    assert measurement.count == 2
    assert len(list(folder.iterdir())) == 1


def test_another_network_dtype_number_of_threads_or_kind_of_run_is_measured_separately(folder, measurement):
    use(measurement)
    assert use(measurement, arch="other")[0] == "measured"
    assert use(measurement, gradients=False)[0] == "measured"
    assert use(measurement, dtype="bfloat16")[0] == "measured"
    surrogate = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    assert use(measurement, source=SurrogateModel(surrogate))[0] == "measured", "its gradients are another network's"
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert use(measurement)[0] == "measured"
    finally:
        torch.set_num_threads(threads)
    assert use(measurement)[0] == "cache"
    assert len(list(folder.iterdir())) == 6


def test_images_of_another_size_are_measured_separately():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    one, other = (
        SmoothedClassifier(network, sigma=0.5, num_classes=3, input_shape=(1, size, size)) for size in (8, 16)
    )
    assert model_key(one, "net") != model_key(other, "net")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"key": {}}',
        b"\xff\xfe",
        b"[" * 90_000,
        b" " * 200_000,
    ],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(folder, measurement, content: bytes):
    use(measurement)
    (file,) = folder.iterdir()
    file.write_bytes(content)
    assert use(measurement) == ("measured", 256)
    assert use(measurement) == ("cache", 256)


@pytest.mark.parametrize(
    "chunks",
    [{}, {"votes": 64}, [64], None]
    + [{"votes": size, "gradient": 64} for size in ("large", "64", -64, 0, 64.0, True, 99999999999, float("nan"))],
    ids=str,
)
def test_impossible_chunk_sizes_are_measured_again(folder, measurement, chunks):
    use(measurement)
    (file,) = folder.iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "chunks": chunks}))
    assert use(measurement) == ("measured", 256)


def test_one_of_another_key_under_this_name_is_not_taken(folder, measurement):
    use(measurement)
    (file,) = folder.iterdir()
    document = json.loads(file.read_text())
    document["key"]["torch"] = "1.0"
    file.write_text(json.dumps(document))
    assert use(measurement)[0] == "measured"
    assert json.loads(file.read_text())["key"]["torch"] == torch.__version__


def test_under_a_limit_nothing_is_kept_that_left_sizes_out(folder, measurement):
    assert use(measurement, most=128) == ("measured", 128)
    assert not folder.exists()


def test_the_layout_is_kept_and_one_that_the_network_refuses_is_measured_again(folder, monkeypatch):
    asked: list[SmoothedClassifier] = []

    def measure(classifier: SmoothedClassifier, gradients: bool, most: int | None) -> Tuning:
        asked.append(classifier)
        return Tuning({"votes": 64, "gradient": 32}, channels_last=True)

    def again() -> tuple[str, SmoothedClassifier]:
        classifier = make_small()
        return tuned(classifier, "small", "float32", True, False, None, measure), classifier

    assert again()[0] == "measured"
    origin, classifier = again()
    assert (origin, classifier.memory_format) == ("cache", torch.channels_last)
    assert (classifier.votes_chunk, classifier.gradient_chunk) == (64, 32)

    def refuses(classifier: SmoothedClassifier, layout: torch.memory_format) -> None:
        raise RuntimeError("unsupported memory format")

    monkeypatch.setattr(SmoothedClassifier, "lay_out", refuses)
    assert again()[0] == "measured"
    assert len(asked) == 2


def test_a_number_is_kept_unless_it_can_be_none_or_is_wanted_anew(folder):
    key = {"of": "a test"}
    assert kept(key, False, lambda: 1.5) == 1.5
    assert kept(key, False, lambda: 2.5) == 1.5
    assert kept(key, True, lambda: 3.5) == 3.5
    (file,) = folder.iterdir()
    for impossible in (0.0, -1.0, float("inf"), float("nan"), "2", None):
        file.write_text(json.dumps({"key": key, "value": impossible}))
        assert kept(key, False, lambda: 4.5) == 4.5
        assert kept(key, False, lambda: 5.5) == 4.5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_no_error(folder, measurement):
    folder.parent.mkdir()
    folder.parent.chmod(0o500)
    assert use(measurement)[0] == "measured"


def test_a_file_in_the_place_of_the_folder_is_no_error(folder, measurement):
    folder.parent.write_text("not a folder")
    assert use(measurement)[0] == "measured"


def test_where_the_cache_is(monkeypatch, tmp_path):
    for name in ("CAA_TUNING_CACHE", "CAA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "caa"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/caa")
    monkeypatch.setenv("CAA_CACHE_DIR", "/y")
    assert cache_folder() == Path("/y")
    monkeypatch.setenv("CAA_CACHE_DIR", "~/z")
    assert cache_folder() == tmp_path / "z"
    for word in ("off", "No", "false", "0"):
        monkeypatch.setenv("CAA_TUNING_CACHE", word)
        assert cache_folder() is None


def test_runs_say_what_they_used_and_find_the_same(folder, tmp_path):
    """--chunk-size auto measures, then reads; measure does it anew; the results are those of any other chunk."""
    sizes = ("auto", "auto", "measure", "256")
    found = [attack(tmp_path / f"{n}.json", "--limit", "2", "--chunk-size", size) for n, size in enumerate(sizes)]
    engines = [document["environment"]["engine"] for document in found]
    assert [engine["chosen"] for engine in engines] == ["measured", "cache", "measured", "set"]
    assert engines[0] | {"chosen": ""} == engines[1] | {"chosen": ""}
    assert engines[3]["votes_chunk"] == 256
    assert {document["fingerprint"] for document in found} == {found[0]["fingerprint"]}
    outcomes = [[(e["index"], e["outcome"], e["prediction"]) for e in timeless(document)] for document in found]
    assert outcomes.count(outcomes[0]) == 4


def test_a_result_names_the_chunk_that_memory_allowed(tmp_path, monkeypatch):
    whole = SmoothedClassifier.vote

    def vote(self, noisy, piece):
        if piece.size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, noisy, piece)

    monkeypatch.setattr(SmoothedClassifier, "vote", vote)
    document = attack(tmp_path / "a.json", "--limit", "1", "--chunk-size", "256")
    assert document["environment"]["engine"]["votes_chunk"] <= 100


def test_two_processes_at_once_do_each_other_no_harm(tmp_path):
    environment = {**ENVIRONMENT, "CAA_TUNING_CACHE": "on", "CAA_CACHE_DIR": str(tmp_path / "cache")}
    words = ["certify", "--checkpoint", "demo", "--limit", "1", "--samples", "100", "--quiet"]
    running = [fork(*words, "--output", tmp_path / f"{n}.json", env=environment) for n in range(2)]
    for process in running:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    assert read_strict(tmp_path / "1.json")["environment"]["engine"]["chosen"] == "measured"
    (file,) = (tmp_path / "cache" / "tuning").iterdir()
    assert set(json.loads(file.read_text())["chunks"]) == {"votes"}


def test_a_word_that_is_no_chunk_size_is_refused(tmp_path):
    result = caa("attack", "--checkpoint", "demo", "--chunk-size", "large", "--output", tmp_path / "a.json")
    assert result.exit_code == 2
    assert "--chunk-size" in result.stderr


class Machine:
    """A clock, and a chunk whose time is known; now and then everything takes four times as long for a while."""

    def __init__(self, seed: int) -> None:
        self.now, self.random, self.slow_until = 0.0, random.Random(seed), 0.0

    def clock(self) -> float:
        return self.now

    @staticmethod
    def truth(size: int) -> float:
        """Seconds a sample: calls cost small chunks, leaving the cache costs large ones; 256 is the best."""
        return 1e-5 + 2e-3 / size + (3e-6 if size > 256 else 0.0)

    def run(self, size: int) -> int:
        if self.now > self.slow_until and self.random.random() < 0.05:
            self.slow_until = self.now + self.random.uniform(0.02, 0.3)
        slow = 4.0 if self.now < self.slow_until else 1.0
        self.now += slow * self.truth(size) * size * self.random.uniform(1.0, 1.1)
        return size


@pytest.mark.parametrize("seed", range(20))
def test_slow_spells_of_the_machine_do_not_decide(seed: int):
    machine, sizes = Machine(seed), [2**p for p in range(3, 12)]
    best = best_chunk(sweep(machine.run, sizes, machine.clock, 1.0))
    assert machine.truth(best) <= 1.2 * min(map(machine.truth, sizes)), best


def test_of_equals_the_largest_is_taken():
    assert best_chunk({64: 1.0, 128: 1.01, 256: 1.02, 512: 1.1}) == 256
    assert best_chunk({8: 1.0, 16: 1.2, 32: 1.3}) == 8


def test_a_limit_below_the_smallest_usual_size_is_measured_itself():
    classifier = make_small()
    assert tune_chunks(classifier, 0.01, most=5).chunks == {"votes": 5, "gradient": 5}
    assert (classifier.votes_chunk, classifier.gradient_chunk) == (5, 5)


def test_where_memory_refuses_the_smallest_size_smaller_ones_are_measured():
    machine = Machine(0)

    def tight(size: int) -> int:
        machine.run(min(size, 100))
        while size > 100:
            size //= 2
        return size

    assert set(sweep(tight, [256, 512], machine.clock, 0.1)) == {64}
