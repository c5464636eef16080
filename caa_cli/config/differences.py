"""Where two configurations differ in what decides results."""

from __future__ import annotations

from typing import Any

from caa_cli.config.attacks import WORDS
from caa_cli.config.choices import INTERVALS

# What runs did before there was a setting, where that is not its default now.
FORMERLY = {"verification": INTERVALS, "target": None}


def decisive(name: str, value: Any) -> Any:
    """What of a setting decides results: of a surrogate's checkpoint not its path (its content is compared apart)."""
    return value.partition("=")[0] if name == "gradient" and isinstance(value, str) else value


def differences(recorded: dict[str, Any], requested: dict[str, Any], compared: list[str]) -> list[str]:
    """Where two configurations differ in a setting that decides results, in words.

    Of two attacks that are not the same, the settings that only one of them has are left out.
    """
    recorded = {**{name: value for name, value in FORMERLY.items() if name in requested}, **recorded}
    if recorded.get("attack") != requested.get("attack"):
        compared = ["attack", *(key for key in compared if key != "attack" and key in recorded and key in requested)]
    return [
        f"{WORDS.get(key, key)} ({recorded.get(key)} there, {requested.get(key)} here)"
        for key in compared
        if decisive(key, recorded.get(key)) != decisive(key, requested.get(key))
    ]
