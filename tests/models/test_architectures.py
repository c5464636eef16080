"""Names of architectures."""

from __future__ import annotations

import pytest
import torch
from support import assert_clean_error, caa

from caa_cli.config.choices import ARCHITECTURES
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard


@pytest.mark.parametrize("arch", [*ARCHITECTURES, "resnet56", "wrn-16-4", "densenet-bc-100-12", "vgg19-cifar"])
def test_every_name_that_the_help_has_is_a_network_and_so_are_other_depths(arch):
    with torch.device("meta"):
        logits = build(ModelCard(arch, 7, (3, 32, 32))).eval()(torch.empty(2, 3, 32, 32))
    assert logits.shape == (2, 7)


NONE = (
    *("resnet2", "resnet21", "resnet152", "wrn-4-2", "wrn-29-2", "wrn-28-0"),
    *("densenet-1-12", "densenet-41-12", "densenet-40-0", "densenet-bc-43-12", "vgg15-cifar"),
)


@pytest.mark.parametrize("arch", NONE)
def test_a_depth_or_width_that_no_network_has_is_refused(arch, tmp_path):
    words = ["train", "--dataset", "demo", "--sigma", "0.5", "--arch", arch, "--output", tmp_path / "x.safetensors"]
    assert_clean_error(caa(*words), 2, f"unknown architecture '{arch}'", "use --arch with one of small-cnn")
