"""A command starts and ends without Python's garbage collector looking at torch, and works with it."""

from __future__ import annotations

import subprocess
import sys

from support import COMMAND, ENVIRONMENT

# When the command is done: whether it collects, what it no longer looks at, and how often it has looked at some.
# When the process ends: what it would look at.
SAYS = """import atexit, gc
collections = lambda: sum(one["collections"] for one in gc.get_stats())
atexit.register(lambda: print(len(gc.get_objects())))
"""
DONE = "\ntry: main()\nfinally: print(gc.isenabled(), gc.get_freeze_count(), collections())"


def test_torch_is_left_alone_at_the_start_and_at_the_end():
    command = [sys.executable, "-c", SAYS + COMMAND.replace("main()", DONE), "inspect", "--checkpoint", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    collects, frozen, collections, objects = done.stdout.split()[-4:]
    assert collects == "True"
    assert int(frozen) > 50_000  # torch alone is some 100,000
    assert 0 < int(collections) < 100  # its import alone takes some hundred
    assert int(objects) < 20
