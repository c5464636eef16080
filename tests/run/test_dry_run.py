"""`--dry-run`: the model is built, one batch is timed, and nothing is written."""

from __future__ import annotations

import json
import time

import pytest
import torch
from safetensors.torch import save_file
from support import CHEAP, assert_clean_error, caa, parse_strict

from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.run.dry_run import Evaluations, Forecast, summed
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradients import SurrogateModel, WhiteBox
from caa_cli.smoothing.stein import SteinEstimator
from caa_cli.tuning.pace import Pace, measure_pace

PACE = Pace(forward=0.5, search_forward=0.25, backward=2.0, memory=1_000_000)


def test_time_is_that_of_the_evaluations_and_memory_that_of_a_batch_and_of_the_search():
    forecast = Forecast(PACE, Evaluations(200, 100), Evaluations(40, 20), reserve=500_000)
    assert forecast.to_json() == {
        "forward_evaluations_at_most": 200,
        "backward_evaluations_at_most": 100,
        "seconds_typical": 60.0,
        "seconds_at_most": 300.0,
        "memory_bytes": 1_500_000,
    }
    shown = dict(forecast.rows())
    assert shown["forward evaluations"] == "typically 40, at most 200"
    assert shown["time"].startswith("typically 1:00, at most 5:00")
    assert shown["memory"] == "about 2 MB"


def test_the_searchs_evaluations_have_their_own_pace():
    assert Forecast(PACE, Evaluations(200, 10, searching=40)).to_json()["seconds_at_most"] == 80.0 + 10.0 + 20.0


def test_what_is_not_known_is_not_said():
    """A decision on one radius mostly takes few samples, but how few is not known."""
    forecast = Forecast(PACE, Evaluations(200))
    assert forecast.to_json()["seconds_typical"] is None
    assert dict(forecast.rows())["time"].startswith("at most 1:40")
    assert "backward evaluations" not in dict(forecast.rows())
    assert dict(Forecast(PACE, Evaluations(200), Evaluations(200)).rows())["time"].startswith("1:40,")


def test_attacks_run_one_after_the_other():
    one, other = (Forecast(PACE, Evaluations(n, 0), Evaluations(n / 2, 0)).to_json() for n in (100, 400))
    rows, total = summed([one, other])
    assert total == {"seconds_typical": 125.0, "seconds_at_most": 250.0}
    assert rows == [("time", "typically 2:05, at most 4:10")]


@pytest.mark.parametrize("source", ["white box", "surrogate", "votes"])
def test_the_chunks_of_the_run_are_timed(source: str):
    """The batches that the network sees have the sizes that the run will use, and none is left undone."""
    batches: list[int] = []
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    network.register_forward_hook(lambda module, inputs, outputs: batches.append(len(inputs[0])))
    surrogate = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    sources = {"white box": WhiteBox(), "surrogate": SurrogateModel(surrogate), "votes": SteinEstimator()}
    classifier = SmoothedClassifier(
        network, sigma=0.5, num_classes=3, input_shape=(1, 2, 2), gradients=sources[source], votes_chunk=32,
        gradient_chunk=64,
    )  # fmt: skip
    pace = measure_pace(classifier, search=True)
    assert set(batches) == ({32} if source == "votes" else {32, 64})
    assert pace.forward > 0
    assert (pace.backward > 0) or source != "white box"
    assert pace.memory > 0
    assert (classifier.votes_chunk, classifier.search_chunk) == (32, 32 if source == "votes" else 64)
    batches.clear()
    assert measure_pace(classifier, search=False).backward == 0.0
    assert set(batches) == {32}


def test_the_time_of_a_backward_pass_is_without_that_of_the_forward_pass(monkeypatch):
    """By a clock that goes on by a second for each sample forwards, and by three for each backwards."""
    now = 0.0
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))

    def forward(module, inputs, outputs):
        nonlocal now
        now += len(outputs)

    def backward(module, inputs, outputs):
        nonlocal now
        now += 3 * len(outputs[0])

    network.register_forward_hook(forward)
    network.register_full_backward_hook(backward)
    classifier = SmoothedClassifier(
        network, sigma=0.5, num_classes=3, input_shape=(1, 2, 2), votes_chunk=32, gradient_chunk=64
    )
    with monkeypatch.context() as patched:
        patched.setattr(time, "perf_counter", lambda: now)
        pace = measure_pace(classifier, search=True)
    assert (pace.forward, pace.search_forward, pace.backward) == (1.0, 1.0, 3.0)


@pytest.mark.parametrize(
    "words",
    [
        ["attack", *CHEAP, "--save-adversarial", "a.safetensors"],
        ["attack", *CHEAP, "--gradient", "votes"],
        ["certify", "--checkpoint", "demo", "--samples", "1000", "--chunk-size", "64"],
        ["certify", "--checkpoint", "demo", "--samples", "1000", "--chunk-size", "64", "--radius", "0.5"],
        ["compare", *CHEAP, "--attacks", "caa,ddn"],
        ["train", "--dataset", "demo", "--epochs", "3", "--method", "smoothadv", "--attack-steps", "1"],
    ],
    ids=["attack", "by votes", "certify", "radius", "compare", "train"],
)
def test_it_says_how_long_it_takes_and_writes_nothing(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = caa(*words, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    found = parse_strict(result.stdout)
    assert found["seconds_typical"] is None if "--radius" in words else found["seconds_typical"] > 0
    if words[0] != "train":
        assert found["seconds_at_most"] >= (found["seconds_typical"] or 0)
    each = list(found["attacks"].values()) if words[0] == "compare" else [found]
    assert all(one["memory_bytes"] > 10_000_000 for one in each)
    for name in ("seconds_typical", "seconds_at_most") if words[0] == "compare" else ():
        assert found[name] == pytest.approx(sum(one[name] for one in each))
    assert any(line.startswith("time ") for line in result.stderr.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_the_images_that_are_searched_together():
    """One image fills a chunk of 8 samples. The process's own peak can't fall from the first run to the second."""

    def memory(*words: str) -> int:
        found = caa("attack", "--checkpoint", "demo", "--chunk-size", "8", "--dry-run", "--json", *words)
        return json.loads(found.stdout)["memory_bytes"]

    assert memory("--batch-size", "20") > memory() + 10_000_000


def test_the_forecast_of_each_attack_is_whole():
    """A row that an earlier attack has too, as settings, is no less news: here the time."""
    result = caa("compare", *CHEAP, "--attacks", "caa,pgd:iterations=4", "--limit", "1", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert sum(line.startswith("time  ") for line in lines) == 3, result.stderr  # and that of both together
    assert sum(line.startswith("model  ") for line in lines) == 1


def test_a_model_that_can_not_run_is_found_out(tmp_path):
    """As by the run itself: the weights are loaded, and a batch goes through them."""
    weights = read_weights(DEMO_CHECKPOINT)
    broken = {name: tensor * 1e38 for name, tensor in weights.tensors.items()}
    save_file(broken, tmp_path / "x.safetensors", metadata=weights.card.to_metadata())
    words = ["--checkpoint", tmp_path / "x.safetensors", "--dataset", "demo"]
    assert_clean_error(caa("certify", *words, "--dry-run"), 1, "returns NaN")
