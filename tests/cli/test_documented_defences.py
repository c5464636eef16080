"""The commands of docs/guides/defences.md that attack each kind of defence run as they are written, on small networks
with random weights in the files' published layouts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from published import ThinResNet, cohen, in_front, seasoned
from published_denoisers import dncnn, ffdnet, save_dncnn
from support import caa, read_strict

from caa_cli.data.datasets import class_names

PAGE = Path(__file__).parents[2] / "docs/guides/defences.md"
FEW = "--samples 8 --iterations 2 --selection-samples 8 --certify-samples 8 --verify-samples 8 --chunk-size 8"


def documented(part: str) -> list[str]:
    """The words of the page's one command that has this part."""
    section = PAGE.read_text(encoding="utf-8").split("## One command for each")[1].split("\n## ")[0]
    commands = re.findall(r"^caa attack(?:.*\\\n)*.*$", section, re.MULTILINE)
    [command] = [command for command in commands if part in command]
    return shlex.split(command.replace("\\\n", " "))[1:]


def run(part: str) -> dict:
    result = caa(*documented(part), *FEW.split(), "--device", "cpu", "--output", "result.json")
    assert result.exit_code == 0, result.output
    found = read_strict(Path("result.json"))
    assert {example["outcome"] for example in found["examples"]} <= {
        "attacked",
        "not_found",
        "abstained",
        "misclassified",
    }
    return found["checkpoint"]


@pytest.fixture(autouse=True)
def _data(tmp_path, monkeypatch):
    """One image a class of CIFAR-10, and one of ImageNet's, in a folder `data`."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for folder in [*(f"test/{name}" for name in class_names("cifar10")), "val/n01440764"]:
        size = 32 if folder.startswith("test") else 64
        pixels = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8).numpy()
        Path("data", folder).mkdir(parents=True)
        Image.fromarray(pixels).save(Path("data", folder, "0.png" if size == 32 else "0.JPEG"))


def save_cohen(path: str, seed: int = 0) -> None:
    torch.manual_seed(seed)
    Path(path).parent.mkdir(exist_ok=True)
    torch.save(cohen("cifar_resnet20")(in_front(seasoned(ThinResNet(8), seed))), path)


def test_a_pair_of_salman_et_al():
    save_cohen("classifier.pth.tar")
    save_dncnn(dncnn(depth=3, width=4), Path("dncnn.pth.tar"))
    assert run("dncnn.pth.tar")["denoiser"]["family"] == "dncnn"


def test_ffdnet_in_front_of_a_network_of_timm():
    timm = pytest.importorskip("timm")
    torch.save(ffdnet(width=4, depth=3).state_dict(), "ffdnet_color.pth")
    torch.save(timm.create_model("resnet18").state_dict(), "resnet18.pth")
    found = run("timm:")
    assert (found["arch"], found["denoiser"]["family"]) == ("timm:resnet18", "ffdnet")


def test_a_folder_of_diffusers_in_front_of_one_of_the_hub():
    diffusers, transformers = (pytest.importorskip(name) for name in ("diffusers", "transformers"))
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = diffusers.UNet2DModel(sample_size=32, layers_per_block=1, block_out_channels=(32, 32), **blocks)
    network.save_pretrained("ddpm-cifar10-32/unet")
    diffusers.DDPMScheduler().save_pretrained("ddpm-cifar10-32/scheduler")
    names = dict(enumerate(class_names("cifar10")))
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        id2label=names,
        label2id={v: k for k, v in names.items()},
    )
    transformers.ResNetForImageClassification(config).save_pretrained("resnet-cifar10")
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained("resnet-cifar10")
    found = run("ddpm-cifar10-32")
    assert (found["denoiser"]["family"], found["arch"]) == ("diffusers", "transformers:ResNetForImageClassification")


def test_three_checkpoints_of_cohen_et_al():
    for seed in range(3):
        save_cohen(f"noise_0.25-{seed}/checkpoint.pth.tar", seed)
    found = run("noise_0.25-2")
    assert (found["ensemble"], len(found["members"])) == ("logits", 2)
