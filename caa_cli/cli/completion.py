"""What a shell offers for the value of an option when Tab is pressed. Nothing here loads more than `caa --help`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from caa_cli.config.attack_settings import prefix
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.compared_settings import setting_names

Completion = Callable[[str], list[str]]
_USUAL_COUNTS = (2, 4, 8, 16, 32)


def among(names: Iterable[str]) -> Completion:
    """A completion with one of these names; a registry is read when it is asked for."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def checkpoints(incomplete: str) -> list[str]:
    """`demo` once it is begun; before, nothing, so that the shell offers files."""
    return ["demo"] if incomplete and "demo".startswith(incomplete) else []


def shards(incomplete: str) -> list[str]:
    """`auto`, `auto/N` and `k/N`, for the k that is typed and usual N."""
    typed = incomplete.partition("/")[0]
    index = int(typed) if typed.isdecimal() and len(typed) < 10 else 0
    parts = [f"{index}/{count}" for count in _USUAL_COUNTS if count > index]
    forms = ["auto", *(f"auto/{count}" for count in _USUAL_COUNTS), *parts]
    return [form for form in forms if form.startswith(incomplete)]


def attack_lists(incomplete: str) -> list[str]:
    """The last entry of --attacks: an attack or, after its colon, one of its settings; what is before it stays."""
    before, comma, last = incomplete.rpartition(",")
    name, equals, unnamed = last.partition("=")
    if equals and ":" not in name:  # as in paper=caa:iterations=50
        before, comma, last = f"{before}{comma}{name}", equals, unnamed
    attack, *settings = last.split(":")
    if not settings:
        entries = list(ATTACKS)
    elif attack in ATTACKS:
        names = (name.removeprefix(prefix(attack)).replace("_", "-") for name in setting_names(attack))
        entries = [":".join([attack, *settings[:-1], f"{name}="]) for name in names]
    else:
        entries = []
    return [f"{before}{comma}{entry}" for entry in entries if entry.startswith(last)]
