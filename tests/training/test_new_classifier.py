"""Networks of the user's own are trained to checkpoints that can be read; where not, it is said before training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import assert_clean_error, caa

from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.datasets import open_dataset
from caa_cli.models.checkpoint import read_weights
from caa_cli.training.new_classifier import new_classifier

NETWORKS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, tied=False, **buffers):
        super().__init__()
        self.first, self.second = nn.Linear(784, 10), nn.Linear(784, 10)
        if tied:
            self.second.weight = self.first.weight
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.first(x.flatten(1)) + self.second(x.flatten(1))

class Viewing(nn.Module):
    # As much code is written: `view` takes images in one layout only.

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(1, 2, 5, stride=4), nn.Linear(2 * 36, 10)

    def forward(self, x):
        x = self.conv(x)
        return self.last(x.view(len(x), -1))

class Training(nn.Module):
    def __init__(self, trains):
        super().__init__()
        self.last, self.trains = nn.Linear(784, 10), trains

    def forward(self, x):
        logits = self.last(x.flatten(1))
        return self.trains(logits) if self.training else logits

def pair(): return Training(lambda logits: (logits, logits))
def fails(): return Training(lambda logits: {}["no such thing"])
def seven(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 7))
def tied(): return Net(tied=True)
def parts():
    whole = torch.arange(10.0)
    return Net(low=whole[:4], high=whole[4:])
def mask(): return Net(mask=torch.full((4, 4), -torch.inf).triu(1))
def wavy(): return Net(wave=torch.ones(3, dtype=torch.complex64))
def repeated(): return Net(same=torch.ones(1).expand(5))
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nets.py"
    path.write_text(NETWORKS)
    return path


@pytest.mark.parametrize("name", ["tied", "parts"])
def test_tensors_that_share_memory_are_saved(file: Path, name: str):
    output, arch = file.with_name("net.safetensors"), f"{file}:{name}"
    words = ["--dataset", "demo", "--arch", arch, "--epochs", "1", "--evaluate-samples", "0"]
    result = caa("train", *words, "--output", output)
    assert result.exit_code == 0, result.output
    tensors = read_weights(output).tensors
    assert torch.equal(tensors["first.weight"], tensors["second.weight"]) == (name == "tied")
    found = caa("certify", "--checkpoint", output, "--arch", arch, "--samples", "100", "--limit", "1")
    assert found.exit_code == 0, found.output


def test_a_classifier_normalises_as_its_card_says():
    plan, images = TrainPlan(dataset="demo"), open_dataset("demo", None, "train")
    made = new_classifier(plan, images)
    assert (made.card.mean, made.card.std) == ((0.1307,), (0.3081,))
    x = images.image(0)[None]
    assert torch.allclose(made.network(x), made.network.network((x - 0.1307) / 0.3081), atol=1e-6)


@pytest.mark.parametrize(("name", "problem"), [("mask", "mask"), ("wavy", "wave"), ("repeated", "same")])
def test_a_network_whose_checkpoint_could_not_be_read_is_refused_before_training(file: Path, name: str, problem: str):
    output = file.with_name("net.safetensors")
    result = caa("train", "--dataset", "demo", "--arch", f"{file}:{name}", "--epochs", "1", "--output", output)
    assert_clean_error(result, 2, f"no checkpoint of {file}:{name} could be read", "persistent=False")
    assert problem in result.stderr.partition("after training")[2]
    assert not list(file.parent.glob("net.safetensors*"))


@pytest.mark.parametrize(
    ("name", "problem", "hint"),
    [
        ("pair", "returns a tuple in training mode, where logits are wanted", "alone"),
        ("fails", "failed (KeyError: 'no such thing')", "network.train()"),
        ("Viewing", "failed (RuntimeError: view size is not compatible", "--no-channels-last"),
    ],
)
def test_a_network_that_fails_in_training_is_one_message(file: Path, name: str, problem: str, hint: str):
    words = ["--dataset", "demo", "--arch", f"{file}:{name}", "--epochs", "1", "--evaluate-samples", "0"]
    for more in ([], ["--dry-run"]):
        assert_clean_error(caa("train", *words, *more), 1, problem, hint)


def test_a_network_of_other_classes_is_refused_before_training(file: Path):
    result = caa("train", "--dataset", "demo", "--arch", f"{file}:seven", "--epochs", "1", "--output", "a")
    assert_clean_error(result, 2, "seven gives 7 logits for an image, not one for each of 10 classes", "num_classes")


def test_networks_that_take_one_layout_are_trained_and_trained_for_in_it(file: Path):
    words = ["--dataset", "demo", "--epochs", "1", "--evaluate-samples", "0"]
    arch = f"{file}:Viewing"
    assert caa("train", *words, "--arch", arch, "--no-channels-last", "--output", "a").exit_code == 0
    words += ["--method", "denoiser", "--mse-epochs", "0", "--depth", "2", "--classifier", arch, "--output", "b"]
    assert_clean_error(caa("train", *words), 1, f"a step of training with {arch} failed", "--no-channels-last")
    assert caa("train", *words, "--no-channels-last").exit_code == 0
