"""Make notebook.ipynb from notebook.md: python docs/tutorials/make_notebook.py"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("notebook.md")


def cells(page: str) -> list[tuple[str, str]]:
    """(kind, text) of every cell: `code` for the Python blocks, `markdown` for what stands between them."""
    parts = re.split(r"^```python\n(.*?)^```\n", page, flags=re.DOTALL | re.MULTILINE)
    kinds = ["code" if number % 2 else "markdown" for number in range(len(parts))]
    return [(kind, text.strip("\n")) for kind, text in zip(kinds, parts, strict=True) if text.strip()]


def notebook(page: str) -> str:
    """The notebook as a file holds it, without outputs."""
    made: list[dict[str, Any]] = []
    for number, (kind, text) in enumerate(cells(page)):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        made.append({**cell, "execution_count": None, "outputs": []} if kind == "code" else cell)
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    document = {"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.with_suffix(".ipynb").write_text(notebook(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
