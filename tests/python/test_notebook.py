"""The notebook of the tutorial: it is its page, and its cells run."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

TUTORIALS = next(f for f in Path(__file__).parents if (f / "pyproject.toml").is_file()) / "docs" / "tutorials"


def test_the_notebook_is_its_page():
    make = runpy.run_path(str(TUTORIALS / "make_notebook.py"))
    page = (TUTORIALS / "notebook.md").read_text(encoding="utf-8")
    held = (TUTORIALS / "notebook.ipynb").read_text(encoding="utf-8")
    assert held == make["notebook"](page), "run python docs/tutorials/make_notebook.py"


def test_the_cells_of_the_notebook_run(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    held = json.loads((TUTORIALS / "notebook.ipynb").read_text(encoding="utf-8"))
    code = ["".join(cell["source"]) for cell in held["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {"__name__": "notebook"}
    for number, source in enumerate(code):
        exec(compile(source, f"cell {number}", "exec"), names)
    results = names["results"]
    assert results.success.all()
    assert np.all(results.radius > results.certified_radius)
    plot = names["plt"]
    if plot is None:
        pytest.skip("no picture without matplotlib")
    plot.close("all")
