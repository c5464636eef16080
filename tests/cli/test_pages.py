"""The pages name files that are there, and show commands with options that are there."""

from __future__ import annotations

import re
import runpy
from functools import cache
from pathlib import Path

import pytest
import typer

from caa_cli.cli.app import app

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What a reader of the recipes is to write.
RECIPES = {
    "caa_cli/attacks/baselines/mi_fgsm.py",
    "caa_cli/smoothing/hoeffding.py",
    "caa_cli/data/kmnist.py",
    "caa_cli/training/pairing.py",
    "caa_cli/models/denoisers/blur.py",
}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@every_page
def test_the_files_that_a_page_names_are_there(page: Path):
    named = set(re.findall(r"(?<![\w./-])((?:caa_cli|tests|docs)/[\w./-]*\w)", page.read_text(encoding="utf-8")))
    assert [name for name in sorted(named - RECIPES) if not (ROOT / name).exists()] == []


@cache
def options(subcommand: str) -> set[str]:
    parameters = typer.main.get_command(app).commands[subcommand].params  # type: ignore[attr-defined]
    return {"--help", *(word for parameter in parameters for word in [*parameter.opts, *parameter.secondary_opts])}


@every_page
def test_the_commands_that_a_page_shows_have_the_options_that_it_shows(page: Path):
    text = re.sub(r"\\\n", " ", page.read_text(encoding="utf-8"))
    # Up to the end of the line, of the code in the line, or of this command in a row of several.
    for command, words in re.findall(
        r"\bcaa (attack|certify|compare|merge|check|train|inspect)((?: [^`\n|;&]+)?)", text
    ):
        shown = {word for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", words) if "mi-fgsm" not in word}
        assert shown <= options(command), f"caa {command}{words}"


def test_the_page_of_all_options_has_every_option_of_every_command():
    hook = runpy.run_path(str(ROOT / "docs/reference/options_hook.py"))
    page = hook["on_page_markdown"]((ROOT / "docs/reference/options.md").read_text(encoding="utf-8"))
    sections = dict(re.findall(r"^## caa (\w+)\n(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(sections) == set(commands)
    for name, text in sections.items():
        shown = set(re.findall(r"--[a-z][a-z-]*", " ".join(re.findall(r"^\| (.*?) \|", text, flags=re.MULTILINE))))
        assert shown == {word for word in options(name) if word.startswith("--")} - {"--help"}
