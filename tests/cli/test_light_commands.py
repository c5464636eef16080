"""What reads finished results goes without torch, which takes seconds to load; some of it without SciPy too."""

from __future__ import annotations

import subprocess
import sys

from merging import shards
from support import ENVIRONMENT

# Each command in turn, in one new process, and what it has loaded.
SCRIPT = """import sys
from typer.testing import CliRunner
from caa_cli.cli.app import app
for words in (["status"], ["check", "--require", "success_rate>=1"], ["merge", "--output", "all.json"], ["compare"]):
    done = CliRunner().invoke(app, [*words, *sys.argv[1:]])
    print(words[0], done.exit_code, *{"torch", "torchvision", "scipy", "matplotlib"} & set(sys.modules))
"""


def test_finished_results_are_read_without_torch(tmp_path):
    files = map(str, shards(tmp_path, 2))
    command = [sys.executable, "-c", SCRIPT, *files]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=True)
    assert done.stdout.splitlines() == ["status 0", "check 0", "merge 0", "compare 0 scipy"]
