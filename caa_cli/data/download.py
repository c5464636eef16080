"""Downloads by torchvision, only on the user's request."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

from caa_cli.errors import CaaError

DOWNLOAD = "download=True"


def fetch(kind: str, data_dir: Path) -> None:
    """Download missing files with torchvision's data set class of this name, which verifies their checksums.

    Raises CaaError if that fails.
    """
    import torchvision

    try:
        # Some versions print progress on stdout, which may be a pipe for the result.
        with redirect_stdout(sys.stderr):
            getattr(torchvision.datasets, kind)(str(data_dir), download=True)
    except Exception as error:  # whatever is wrong with the network, the folder, or files that are there
        raise CaaError(
            f"can't download {kind} to {data_dir} ({' '.join(str(error).split())})",
            "check the network, that the folder can be written, and that nothing damaged is in it; or copy the files "
            "from another machine",
        ) from error


def torchvision_line(name: str, data_dir: Path, argument: str) -> str:
    """The shell command that creates a torchvision data set."""
    folder = json.dumps(str(data_dir), ensure_ascii=False)  # double quotes, as the shell's are single
    return "python -c " + shlex.quote(f"from torchvision.datasets import {name}; {name}({folder}, {argument})")
