"""What pyproject.toml promises of versions is what CI installs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version(text: str) -> tuple[int, ...]:
    """2.6 and 2.6.0 are one version."""
    numbers = [int(part) for part in text.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


def test_the_oldest_versions_are_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {}
    for requirement in project["dependencies"]:
        match = re.fullmatch(r"([a-z]+)>=([0-9.]+)(,<[0-9.]+)?", requirement)
        assert match, f"{requirement} has no lower bound"
        bounds[match[1]] = version(match[2])
    lines = (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {name: version(text) for name, text in pinned.items()} == bounds
    assert project["requires-python"] == ">=3.11"
