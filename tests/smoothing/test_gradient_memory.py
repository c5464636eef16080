"""Memory for gradients: one chunk's graph, whatever the samples or the rivals, and those that may wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import networks
import pytest
import torch
from networks import make_small
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from caa_cli.attacks.baselines.deepfool import DeepFool
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio

X = torch.full((1, 1, 8, 8), 0.5)
LABEL, KEYS = torch.tensor([0]), [Key(0, 0, Purpose.SEARCH)]


class Graphs:
    """Counts the numbers that autograd keeps for a backward pass, now and at most."""

    def __init__(self) -> None:
        self.held = self.peak = 0

    def watch(self):
        graphs = self

        class Held:
            def __init__(self, tensor: torch.Tensor) -> None:
                self.tensor = tensor.detach()  # of an output, else a circle that a graph without backward pass leaves
                graphs.held += tensor.numel()
                graphs.peak = max(graphs.peak, graphs.held)

            def __del__(self) -> None:
                graphs.held -= self.tensor.numel()

        return saved_tensors_hooks(Held, lambda held: held.tensor)


def peak(samples: int, rivals: list[int], chunk: int = 128) -> int:
    graphs = Graphs()
    with graphs.watch():
        make_small(gradient_chunk=chunk).rival_gradients(X, LABEL, torch.tensor([rivals]), KEYS, samples)
    assert graphs.held == 0
    return graphs.peak


def test_one_graph_is_held_whatever_the_samples_and_rivals():
    one = peak(128, [1])
    assert one > 0
    assert peak(16 * 128, [1]) == one
    assert peak(16 * 128, [1, 2, 1, 2]) == one
    assert peak(256, [1, 2], chunk=256) == pytest.approx(2 * one, rel=0.1)  # the measure does see a larger graph


def test_a_surrogate_holds_one_graph_too():
    graphs, peaks = Graphs(), []
    for samples in (128, 16 * 128):
        graphs.peak = 0
        with graphs.watch():
            make_small(gradient_chunk=128).surrogate(X, LABEL, KEYS, samples, LogRatio())
        peaks.append(graphs.peak)
    assert peaks[0] == peaks[1] > 0
    assert graphs.held == 0


def check(classifier: SmoothedClassifier, graphs: Graphs, samples: int) -> None:
    """A pass gives what it gives in one chunk."""
    with graphs.watch():
        passed = classifier.surrogate(X, LABEL, KEYS, samples, LogRatio())
    assert graphs.held == 0
    whole = make_small(gradient_chunk=samples).surrogate(X, LABEL, KEYS, samples, LogRatio())
    torch.testing.assert_close(passed.gradient, whole.gradient, rtol=1e-5, atol=1e-6)
    assert torch.equal(passed.votes, whole.votes)


@pytest.mark.parametrize(("limit", "chunks"), [(0, 1), (16, 1), (70, 4), (500, 8)])
def test_as_many_graphs_wait_as_may(limit: int, chunks: int):
    one, graphs, classifier = Graphs(), Graphs(), make_small(gradient_chunk=16)
    classifier.graphs = limit
    check(classifier, one, 16)
    check(classifier, graphs, 1000)
    assert graphs.peak == chunks * one.peak


@pytest.mark.parametrize("limit", [0, 70, 500])
def test_the_memory_of_graphs_that_wait_is_known_before(limit: int):
    least, most, classifier = Graphs(), Graphs(), make_small(gradient_chunk=16)
    classifier.graphs = 0
    check(classifier, least, 1000)
    classifier.graphs = limit
    check(classifier, most, 1000)
    assert classifier.waiting_bytes(1000) == pytest.approx(4 * (most.peak - least.peak), rel=0.2)
    assert classifier.waiting_bytes(16) == 0


def test_graphs_that_wait_are_dropped_where_memory_runs_out():
    graphs, classifier = Graphs(), make_small(gradient_chunk=16)
    check(classifier, graphs, 16)
    one, graphs.peak = graphs.peak, 0

    def refuse(*_: object) -> None:
        if graphs.held > 3 * one:
            raise torch.OutOfMemoryError("CUDA out of memory")

    classifier.model.register_forward_pre_hook(refuse)
    check(classifier, graphs, 1000)
    assert graphs.peak == 4 * one
    graphs.peak = 0
    check(classifier, graphs, 1000)
    assert graphs.peak == one, "that they don't fit is remembered"
    assert classifier.gradient_chunk == 16, "a chunk alone does"


def test_fewer_graphs_may_wait_of_a_network_that_keeps_more():
    def limit(depth: int) -> int:
        network = nn.Sequential(nn.Flatten(), *[nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(depth)])
        return SmoothedClassifier(network, sigma=0.5, num_classes=64, input_shape=(1, 8, 8)).limit_graphs()

    assert limit(4) > 100_000
    assert limit(40) == pytest.approx(limit(4) / 10, rel=0.1)


def test_deepfool_holds_no_graph_from_step_to_step():
    peaks = []
    for steps in (1, 6):
        graphs = Graphs()
        with graphs.watch():
            attack = DeepFool(samples=256, steps=steps)
            (finding,) = Search(attack, make_small(gradient_chunk=128)).run([Example(0, X[0], 1)])
        assert finding.iterations <= steps
        assert graphs.held == 0
        peaks.append(graphs.peak)
    assert peaks[0] == peaks[1] > 0


_RESIDENT = """
import resource, sys
sys.path.insert(0, {helpers!r})
import torch
from networks import make_small
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
x, rivals = torch.full((1, 1, 8, 8), 0.5), torch.tensor([[1, 2, 1, 2]])
def work(samples):
    keys = [Key(0, 0, Purpose.SEARCH)]
    make_small(gradient_chunk=2048).rival_gradients(x, torch.tensor([0]), rivals, keys, samples)
work(4096)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
work(16 * 4096)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_the_process_does_not_grow_with_the_samples():
    """Of 65,536 samples the noisy inputs alone would take 17 MB, and each graph more."""
    script = _RESIDENT.format(helpers=str(Path(networks.__file__).parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000, f"{done.stdout} kB more"
