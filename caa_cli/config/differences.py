"""Where two configurations differ in what decides results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caa_cli.config import custom_attack, hyperparameters
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.certificates import COHEN
from caa_cli.config.choices import INTERVALS

# Attacks that may be on draws of the Gumbel–softmax; older runs of them never were.
_ON_DRAWS = [name for name, spec in ATTACKS.items() if issubclass(spec.settings, hyperparameters.PaperBaseline)]
# Values that older runs had for settings which did not exist yet, by setting.
FORMERLY = {
    "verification": INTERVALS,
    "certificate": COHEN,
    "restarts": 1,
    **hyperparameters.FORMERLY,
    **dict.fromkeys(f"{attack}_gumbel_temperature" for attack in _ON_DRAWS),
    **dict.fromkeys(["target", "ensemble", "denoiser_arch", "classifier_size", "image_resize", "interpolation"]),
}
# Settings that default to the value of another setting, in older runs too.
AS_ANOTHER = {"search_dtype": "dtype"}
# How messages name a setting whose own name says too little.
_WORDS = {custom_attack.CODE: "the code of the attack has changed"}


def formerly(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of settings that a configuration of an older version lacks, by setting."""
    return FORMERLY | {name: config.get(other) for name, other in AS_ANOTHER.items()}


def decisive(name: str, value: Any) -> Any:
    """The part of a value that decides results. A surrogate's path does not: its content is compared separately."""
    return value.partition("=")[0] if name == "gradient" and isinstance(value, str) else value


def in_words(value: Any) -> str:
    """A value as messages show it."""
    return "not set" if value is None else str(value)


def differences(recorded: dict[str, Any], requested: dict[str, Any], compared: list[str]) -> list[str]:
    """Where two configurations differ in a setting that decides results, in words.

    If the attacks are different, settings that only one of them has are left out.
    """
    recorded = {**{name: value for name, value in formerly(recorded).items() if name in requested}, **recorded}
    if recorded.get("attack") != requested.get("attack"):
        compared = ["attack", *(key for key in compared if key != "attack" and key in recorded and key in requested)]
    return [
        f"{_WORDS.get(key, key)} ({in_words(recorded.get(key))} there, {in_words(requested.get(key))} here)"
        for key in compared
        if decisive(key, recorded.get(key)) != decisive(key, requested.get(key))
    ]
