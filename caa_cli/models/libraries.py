"""Networks of timm and torchvision by name, and how these libraries prepare images for them. Nothing is downloaded
unless the user's own arguments ask for it: `timm:resnet18(pretrained=True)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.preprocessing import Preprocessing

# How a network of the library gets the weights that the library publishes, for hints.
LIBRARIES = {"timm": "pretrained=True", "torchvision": "weights='DEFAULT'"}
# Networks of torchvision that turn ImageNet's normalisation into this one themselves (`transform_input`), but only
# where torchvision itself loads their published weights.
_TRANSFORMING, _TRANSFORMED = ("googlenet", "inception_v3"), (0.5, 0.5, 0.5)
# What prints all names of its networks.
_LISTING = {
    "timm": "import timm; print(*timm.list_models())",
    "torchvision": "from torchvision import models; print(*models.list_models(models))",
}


def need(package: str, option: str) -> ModuleType:
    """An optional package. Raises CaaError that says how to install it."""
    try:
        with torch.device("cpu"):  # importing may compute with tensors, which must not be meta tensors
            return import_module(package)
    except ImportError as error:
        raise CaaError(
            f"{option} needs {package}, which can't be imported ({error})", f"pip install 'caa-cli[{package}]'"
        ) from error


def library_factory(option: str, library: str, name: str) -> Callable[..., Any]:
    """The callable that makes the network `name` of the library. Raises UsageError for an unknown name."""
    package = need(library, option)
    if library == "timm":
        known, make = package.is_model, package.create_model
        listed = package.list_models
    else:
        models = import_module("torchvision.models")
        listed, make = partial(models.list_models, module=models), models.get_model
        known = listed().__contains__
    if not known(name):
        near = get_close_matches(name, listed(), 5)
        raise UsageError(
            f"{option}: {library} has no network {name}",
            f"near it are {', '.join(near)}" if near else f"list its names: python -c '{_LISTING[library]}'",
        )
    return partial(make, name, **({"init_weights": False} if library != "timm" and name in _TRANSFORMING else {}))


def library_preprocessing(library: str, name: str, settings: Mapping[str, Any], sha256: str) -> Preprocessing | None:
    """How the library prepares images for its network `name`; None where it doesn't say, or is none of `LIBRARIES`.

    settings: those of the call. sha256: of the weights; torchvision publishes several with different crops.
    """
    if library == "timm":
        config = need("timm", f"--arch timm:{name}").get_pretrained_cfg(name)
        return None if config is None else timm_preprocessing(config.to_dict())
    if library != "torchvision":
        return None
    models = import_module("torchvision.models")
    try:
        published = models.get_model_weights(name)
    except ValueError:
        return None
    chosen, asked = published.DEFAULT, str(settings.get("weights")).rpartition(".")[2]
    for weights in published:
        # The hexadecimal digits at the end of the file's name begin its SHA-256.
        if weights.name == asked or weights.url.rpartition("-")[2].partition(".")[0] == sha256[:8]:
            chosen = weights
    crop = chosen.transforms()
    if not hasattr(crop, "crop_size"):  # it is no classifier
        return None
    size, resize = (value[0] for value in (crop.crop_size, crop.resize_size))
    mean, std = tuple(crop.mean), tuple(crop.std)
    if name in _TRANSFORMING and "transform_input" not in settings and not settings.get("weights"):
        mean = std = _TRANSFORMED
    return Preprocessing(mean, std, size, resize, crop.interpolation.value)


def timm_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """timm's `pretrained_cfg`: its defaults are those of timm's own evaluation."""
    _, size, _ = config.get("input_size") or (3, 224, 224)
    mean, std = config.get("mean") or (0.485, 0.456, 0.406), config.get("std") or (0.229, 0.224, 0.225)
    # timm rounds down, as torchvision's Resize takes the shorter side.
    resize = math.floor(size / (config.get("crop_pct") or 0.875))
    return Preprocessing(tuple(mean), tuple(std), size, resize, config.get("interpolation") or "bicubic")
