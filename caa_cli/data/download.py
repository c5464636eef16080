"""Downloads, which torchvision does, and only where a user asks for them."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

from caa_cli.errors import CaaError

DOWNLOAD = "download=True"


def fetch(kind: str, data_dir: Path) -> None:
    """Has torchvision's data set class of this name download its files, if they are not where it looks for them.

    Raises CaaError where that fails; torchvision checks what it got, and takes up nothing half done.
    """
    import torchvision

    try:
        # Some versions print their progress on stdout, which may be a pipe for the result.
        with redirect_stdout(sys.stderr):
            getattr(torchvision.datasets, kind)(str(data_dir), download=True)
    except (OSError, RuntimeError, EOFError) as error:
        raise CaaError(
            f"can't download {kind} to {data_dir} ({' '.join(str(error).split())})",
            "check the network and that the folder can be written, or copy the files from another machine",
        ) from error


def torchvision_line(name: str, data_dir: Path, argument: str) -> str:
    """The command that makes a data set of torchvision, quoted for a shell."""
    folder = json.dumps(str(data_dir), ensure_ascii=False)  # in double quotes, for the shell's to be single ones
    return "python -c " + shlex.quote(f"from torchvision.datasets import {name}; {name}({folder}, {argument})")
