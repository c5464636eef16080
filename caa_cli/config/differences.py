"""Where two configurations differ in what decides results."""

from __future__ import annotations

from typing import Any

from caa_cli.config.attacks import WORDS
from caa_cli.config.choices import INTERVALS

# What runs did before there was a setting, where that is not its default now.
FORMERLY = {"verification": INTERVALS}


def decisive(name: str, value: Any) -> Any:
    """What of a setting decides results: of a surrogate's checkpoint not its path (its content is compared apart)."""
    return value.partition("=")[0] if name == "gradient" and isinstance(value, str) else value


def differences(theirs: dict[str, Any], ours: dict[str, Any], compared: list[str]) -> list[str]:
    """Where two configurations differ in a setting that decides results, in words.

    Of two attacks that are not the same, the settings that only one of them has are left out.
    """
    theirs = {**{name: value for name, value in FORMERLY.items() if name in ours}, **theirs}
    if theirs.get("attack") != ours.get("attack"):
        compared = ["attack", *(key for key in compared if key != "attack" and key in theirs and key in ours)]
    return [
        f"{WORDS.get(key, key)} ({theirs.get(key)} there, {ours.get(key)} here)"
        for key in compared
        if decisive(key, theirs.get(key)) != decisive(key, ours.get(key))
    ]
