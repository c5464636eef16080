"""What makes a search weak is said before it begins."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from support import CHEAP, caa
from torch import nn

import caa_cli

PROBABILITIES = "the network returns probabilities, not logits"


class Positive(nn.Module):
    """Outputs that are not below 0, and no probabilities."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def warned_of(last: nn.Module, dtype: torch.dtype = torch.float32, **settings: object) -> list[str]:
    """What is said before an attack on a network that ends in this layer."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 1000), last)
    model = caa_cli.SmoothedClassifier(network, sigma=0.5, num_classes=1000, input_shape=(1, 28, 28), dtype=dtype)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        x = torch.full((1, 1, 28, 28), 0.5)
        caa_cli.attack(model, x, [0], samples=100, verify_samples=1000, iterations=1, chunk_size=100, **settings)
    return [str(warning.message) for warning in said if PROBABILITIES in str(warning.message)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_that_ends_in_a_softmax_is_warned_of(dtype: torch.dtype):
    (said,) = warned_of(nn.Softmax(dim=1), dtype)
    assert "log_softmax" in said
    assert not warned_of(nn.Softmax(dim=1), dtype, gradient="votes")


@pytest.mark.parametrize("last", [nn.Identity(), nn.LogSoftmax(dim=1), Positive()])
def test_logits_are_not(last: nn.Module):
    assert not warned_of(last)


def test_the_command_warns_too(tmp_path: Path):
    code = "import torch.nn as nn\ndef soft():\n    import torch; torch.manual_seed(0)\n"
    code += "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Softmax(1))\n"
    (tmp_path / "soft.py").write_text(code)
    words = ["attack", *CHEAP[2:], "--arch", f"{tmp_path / 'soft.py'}:soft", "--sigma", "0.5", "--dataset", "demo"]
    result = caa(*words, "--limit", "1", "--output", tmp_path / "a.json")
    assert result.exit_code == 0, result.output
    assert result.stderr.count(PROBABILITIES) == 1
