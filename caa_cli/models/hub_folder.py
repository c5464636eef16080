"""Folders as the Hugging Face Hub has them: `config.json` beside `model.safetensors`, for timm and transformers."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.checkpoint_file import CONFIG, read_file
from caa_cli.models.contents import Contents
from caa_cli.models.fit import fitted, refuse_integers
from caa_cli.models.libraries import library_factory, need, timm_preprocessing
from caa_cli.models.limits import short
from caa_cli.models.preprocessing import Origin, Preprocessing
from caa_cli.models.safetensors_file import read_tensors
from caa_cli.runtime.words import counted

WEIGHTS, _PREPROCESSOR = "model.safetensors", "preprocessor_config.json"
# What an image processor of transformers says of channels in the order blue, green, red.
_REVERSED = "do_flip_channel_order"
# What of a `pretrained_cfg` timm builds the network by: channels, size and pooling.
_BUILT_BY = ("input_size", "fixed_input_size", "global_pool")
# A configuration with the names of 21,841 classes takes 2 MB.
_LONGEST = 20_000_000
# Pillow's numbers of its filters, as transformers stores them.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


class _Logits(nn.Module):
    """A classifier of transformers, whose outputs are objects. reversed: it takes blue, green and red."""

    def __init__(self, network: nn.Module, reversed: bool) -> None:
        super().__init__()
        self.network = network
        self.reversed = reversed

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=x.flip(1) if self.reversed else x).logits
        return logits


def read_hub_folder(folder: Path) -> tuple[Contents, str, int]:
    """(the network in the folder, SHA-256 of weights and configuration together, size in bytes of the weights).

    No code of the folder runs, and nothing is downloaded. Raises CaaError where something is missing or doesn't fit.
    """
    config = _json(folder / CONFIG)
    if not describes_classifier(folder):
        raise UsageError(
            f"{folder / CONFIG} describes no network of timm or transformers",
            f"name the folder of a classifier; one of diffusers goes to --denoiser {folder}",
        )
    content, metadata = _weights(folder)
    if metadata is None:
        raise CaaError(f"{folder / WEIGHTS} is no safetensors file", "download the folder again")
    try:
        network, origin = (
            _transformers(folder, config) if _of_transformers(config) else _timm(folder, config, content)
        )
    except CaaError:
        raise
    except Exception as error:  # whatever a library makes of a wrong configuration
        raise CaaError(
            f"no network can be built as {folder} describes it ({type(error).__name__}: {short(error, 200)})",
            "download the folder again, or update the library that wrote it",
        ) from error
    digest = hashlib.sha256(content)
    digest.update(json.dumps(config, sort_keys=True).encode())
    source = f"a folder of {origin.arch.partition(':')[0]}"
    return (
        Contents(source, dict(network.state_dict()), network.eval(), origin=origin),
        digest.hexdigest(),
        len(content),
    )


def describes_classifier(folder: Path) -> bool:
    """Whether the folder's configuration is one of timm or transformers; diffusers writes another."""
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return "architecture" in config or "model_type" in config


def _of_transformers(config: Mapping[str, Any]) -> bool:
    return "model_type" in config and config["model_type"] != "timm_wrapper"


def _timm(folder: Path, config: Mapping[str, Any], content: bytes) -> tuple[nn.Module, Origin]:
    name = str(config.get("architecture"))
    make = library_factory(f"--checkpoint {folder}", "timm", name)
    # Whatever else a configuration may ask for, such as weights from elsewhere, is not for it to say.
    extra = config.get("model_args") or {}
    settings = {key: value for key, value in extra.items() if not key.startswith(("pretrained", "checkpoint"))}
    classes = config.get("num_classes") or len(config.get("label_names") or ()) or 1000
    stored = config.get("pretrained_cfg") or config  # one dictionary of all before timm 0.9
    built = {key: stored[key] for key in _BUILT_BY if stored.get(key) is not None}
    if settings.get("dynamic_img_size") or settings.get("strict_img_size") is False:
        built["fixed_input_size"] = False  # then the images' size is none of the network's
    network = make(**{**settings, "num_classes": classes, "pretrained": False, "pretrained_cfg_overlay": built})
    tensors = read_tensors(folder / WEIGHTS, content)
    weights, difference = fitted(folder / WEIGHTS, tensors, network.state_dict())
    if difference is not None:
        raise _not_together(folder, difference)
    network.load_state_dict(weights, strict=False)
    names = config.get("label_names") or stored.get("label_names") or config.get("labels") or ()
    described = config.get("label_descriptions") or stored.get("label_descriptions") or {}
    labels = tuple(str(described.get(label, label)) for label in names)
    return network, Origin(f"timm:{name}", timm_preprocessing(stored), labels)


def _transformers(folder: Path, config: Mapping[str, Any]) -> tuple[nn.Module, Origin]:
    package = need("transformers", f"--checkpoint {folder}")
    kind = next(iter(config.get("architectures") or [str(config["model_type"])]))
    if not str(kind).endswith("ForImageClassification"):
        raise UsageError(
            f"{folder} holds a {short(kind)} of transformers, which is no image classifier",
            "name the folder of a model …ForImageClassification",
        )
    # Neither the folder's own code nor a backbone from elsewhere.
    left_out = ("auto_map", "model_type", "use_pretrained_backbone", "quantization_config")
    settings = {key: value for key, value in config.items() if key not in left_out}
    labels = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    if labels:
        settings["id2label"] = labels
    with _silent(package):
        described = package.AutoConfig.for_model(config["model_type"], **settings)
        # Its own reader, as names of tensors in files are not always those of the network.
        network, loading = package.AutoModelForImageClassification.from_pretrained(
            str(folder),
            config=described,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    wrong = [*loading["missing_keys"], *loading["unexpected_keys"], *loading.get("mismatched_keys", ())]
    if wrong:
        raise _not_together(folder, f"{short(wrong[0])} ({counted(len(wrong), 'such difference')})")
    # Of the tensors only their types are looked at: the file is mapped, and not read again.
    refuse_integers(folder / WEIGHTS, load_file(folder / WEIGHTS), network.state_dict())
    names = tuple(labels.get(number, str(number)) for number in range(described.num_labels))
    processor = _json(folder / _PREPROCESSOR) if (folder / _PREPROCESSOR).is_file() else {}
    origin = Origin(f"transformers:{kind}", _preprocessing(processor, config), names)
    # PP-LCNet's reverses them without saying so.
    reversed = bool(processor.get(_REVERSED)) or "PPLCNet" in str(processor.get("image_processor_type"))
    return _Logits(network, reversed), origin


@contextmanager
def _silent(package: ModuleType) -> Iterator[None]:
    """A context in which transformers shows neither warnings nor progress bars."""
    log = package.utils.logging
    bars = log.is_progress_bar_enabled()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if bars:
            log.enable_progress_bar()


def _preprocessing(stored: Mapping[str, Any], config: Mapping[str, Any]) -> Preprocessing | None:
    """What an image processor of transformers does, as it is stored; None where that leaves it open."""
    crop = _length(stored.get("crop_size")) if stored.get("do_center_crop", True) else None
    size = crop or _length(stored.get("size")) or _length(config.get("image_size"))
    normalisation = _normalisation(stored)
    if size is None or normalisation is None:
        return None
    resize = _length(stored.get("size")) or size
    if stored.get("crop_pct") and not stored.get("crop_size"):  # ConvNeXT's: the size after the crop, and its share
        resize = int(size / stored["crop_pct"])
    return Preprocessing(*normalisation, size, max(size, resize), _FILTERS.get(stored.get("resample", 2), "bilinear"))


def _normalisation(stored: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) of pixels in [0, 1]; the library first multiplies pixels up to 255 by a factor."""
    # A processor that reverses the channels (MobileViT's) does not normalise, whatever constants it stores.
    if stored.get("do_normalize", _REVERSED not in stored):
        mean, std = _numbers(stored.get("image_mean")), _numbers(stored.get("image_std"))
    else:
        mean, std = _numbers(0.0), _numbers(1.0)
    if not mean or not std:
        return None
    if stored.get("include_top"):  # EfficientNet's divides by std twice
        std = tuple(value**2 for value in std)
    scale = 255 * stored.get("rescale_factor", 1 / 255) if stored.get("do_rescale", True) else 255
    shift = 1 if stored.get("rescale_offset") else 0
    return tuple((value + shift) / scale for value in mean), tuple(value / scale for value in std)


def _numbers(value: Any) -> tuple[float, ...]:
    """One number for each channel, or for all."""
    return (value,) if isinstance(value, (int, float)) else tuple(value or ())


def _length(value: Any) -> int | None:
    """The shorter side that `{"height": 224, "width": 224}`, `{"shortest_edge": 224}` or 224 means."""
    if isinstance(value, Mapping):
        value = value.get("shortest_edge") or value.get("height")
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return value if isinstance(value, int) and value > 0 else None


def _not_together(folder: Path, difference: str) -> CaaError:
    return CaaError(
        f"the weights in {folder} don't go with its {CONFIG}: {difference}", "download the whole folder again"
    )


def _weights(folder: Path) -> tuple[bytes, dict[str, Any] | None]:
    if (folder / WEIGHTS).is_file():
        return read_file(folder / WEIGHTS)
    if (folder / f"{WEIGHTS}.index.json").is_file():
        raise CaaError(
            f"the weights in {folder} are in several files", f"join them into one {WEIGHTS} with save_pretrained"
        )
    raise UsageError(
        f"{folder} has a {CONFIG}, but no {WEIGHTS}", f"download {WEIGHTS} too, or save the model there again"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError("it is far too long")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("it is no dictionary")
    except (OSError, ValueError, RecursionError) as error:
        raise CaaError(f"{path} can't be read ({short(error, 200)})", "download the folder again") from error
    return document
