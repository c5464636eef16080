"""Training recipes by name: the settings that published models were trained with. Free of torch.

A recipe sets the defaults of a training run. A batch size counts images: published code that shares a batch of
256 among m noises of an image takes 256/m images per step.
"""

from __future__ import annotations

from caa_cli.config.presets import Preset

_SGD = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "schedule": "step", "heldout": 0}
_LENET = {**_SGD, "dataset": "mnist", "arch": "lenet", "normalisation": "none"}
_LENET |= {"epochs": 90, "learning_rate": 0.01, "step_epochs": 30, "batch_size": 256}
_RESNET110 = {**_SGD, "dataset": "cifar10", "arch": "resnet110", "normalisation": "cifar10", "augment": "crop-flip"}
_RESNET110 |= {"epochs": 150, "learning_rate": 0.1, "step_epochs": 50, "batch_size": 256}
_RESNET50 = {**_SGD, "dataset": "imagenet", "arch": "resnet50", "normalisation": "imagenet"}
_RESNET50 |= {"epochs": 90, "learning_rate": 0.1, "step_epochs": 30, "batch_size": 400}
_PAPER = {"method": "gaussian", "arch": "resnet18", "epochs": 50, "batch_size": 128, "optimizer": "adam"}
_PAPER |= {"learning_rate": 1e-3, "schedule": "constant", "augment": "none"}
_ADVERSARIAL = {"method": "smoothadv", "inner_attack": "pgd", "attack_steps": 10, "warmup": 10}
_MACER = {"method": "macer", "draws": 16, "gamma": 8.0, "beta": 16.0}
_DENOISER = {"method": "denoiser", "objective": "mse", "arch": "dncnn", "depth": 17, "width": 64, "epochs": 90}
_DENOISER |= {"optimizer": "adam", "learning_rate": 1e-3, "schedule": "step", "step_epochs": 30, "batch_size": 256}
_DENOISER |= {"weight_decay": 1e-4}

RECIPES: dict[str, Preset] = {
    "paper-mnist": Preset("Et Tu Certifications", {**_PAPER, "dataset": "mnist"}),
    "paper-cifar10": Preset(
        "Et Tu Certifications", {**_PAPER, "dataset": "cifar10", "normalisation": "cifar10-paper"}
    ),
    "paper-imagenet": Preset(
        "Et Tu Certifications",
        {
            **_SGD,
            "dataset": "imagenet",
            "arch": "resnet18-3x3",
            "epochs": 80,
            "learning_rate": 0.1,
            "step_epochs": 30,
            "heldout": None,
        },
    ),
    "cohen-mnist": Preset("Cohen et al. (2019), as in Jeong and Shin (2020)", _LENET),
    "cohen-cifar10": Preset("Cohen et al. (2019)", _RESNET110),
    "cohen-imagenet": Preset("Cohen et al. (2019)", _RESNET50),
    "stability-mnist": Preset(
        "Li et al. (2019), as in Jeong and Shin (2020)", {**_LENET, "method": "stability", "weight": 2.0}
    ),
    "stability-cifar10": Preset(
        "Li et al. (2019), as in Jeong and Shin (2020)",
        {**_RESNET110, "method": "stability", "weight": 2.0},
        {0.25: {}, 0.5: {}, 1.0: {"weight": 1.0}},
    ),
    "smoothadv-mnist": Preset(
        "Salman et al. (2019), as in Jeong and Shin (2020)",
        {**_LENET, **_ADVERSARIAL, "epsilon": 1.0, "draws": 4, "batch_size": 64},
    ),
    "smoothadv-cifar10": Preset(
        "Salman et al. (2019), as in Jeong and Shin (2020)",
        {**_RESNET110, **_ADVERSARIAL},
        {
            0.25: {"epsilon": 1.0, "draws": 4, "batch_size": 64},
            0.5: {"epsilon": 1.0, "draws": 8, "batch_size": 32},
            1.0: {"epsilon": 2.0, "draws": 2, "batch_size": 128},
        },
    ),
    "macer-mnist": Preset(
        "Zhai et al. (2020), as in Jeong and Shin (2020)",
        {**_LENET, **_MACER, "weight": 16.0, "defer": 31},
        {0.25: {}, 0.5: {}, 1.0: {"weight": 6.0}},
    ),
    "macer-cifar10": Preset(
        "Zhai et al. (2020)",
        {
            **_RESNET110,
            **_MACER,
            "normalisation": "none",
            "weight_decay": 5e-4,
            "epochs": 440,
            "learning_rate": 0.01,
            "step_epochs": 200,
            "batch_size": 64,
        },
        {0.25: {"weight": 12.0}, 0.5: {"weight": 6.0}, 1.0: {"weight": 12.0, "defer": 200}},
    ),
    "consistency-mnist": Preset(
        "Jeong and Shin (2020)",
        {**_LENET, "method": "consistency", "draws": 2, "eta": 0.5, "batch_size": 128},
        {0.25: {"weight": 10.0}, 0.5: {"weight": 5.0}, 1.0: {"weight": 5.0}},
    ),
    "consistency-cifar10": Preset(
        "Jeong and Shin (2020)",
        {**_RESNET110, "method": "consistency", "draws": 2, "eta": 0.5, "batch_size": 128},
        {0.25: {"weight": 20.0}, 0.5: {"weight": 10.0}, 1.0: {"weight": 10.0}},
    ),
    "denoiser-mnist": Preset("Salman et al. (2020), on MNIST", {**_DENOISER, "dataset": "mnist"}),
    "denoiser-cifar10": Preset("Salman et al. (2020)", {**_DENOISER, "dataset": "cifar10"}),
}
