"""A command starts and ends without Python's garbage collector looking at torch, and works with it."""

from __future__ import annotations

import subprocess
import sys

from support import COMMAND, ENVIRONMENT

# How often it collects while torch is imported; how many objects it would look at when the process ends.
COUNTS = """import atexit, gc, sys
meanwhile = []
def count(phase, _):
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    meanwhile.extend([phase] if getattr(spec, "_initializing", False) else [])
gc.callbacks.append(count)
atexit.register(lambda: print(len(gc.get_objects())))
"""
# When the command is done: whether it collects, and what it no longer looks at.
DONE = "\ntry: main()\nfinally: print(gc.isenabled(), len(meanwhile), gc.get_freeze_count())"


def test_torch_is_left_alone_at_the_start_and_at_the_end():
    command = [sys.executable, "-c", COUNTS + COMMAND.replace("main()", DONE), "inspect", "--checkpoint", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    collects, meanwhile, frozen, objects = done.stdout.split()[-4:]
    assert collects == "True"
    assert meanwhile == "0"
    assert int(frozen) > 50_000  # torch alone is some 100,000
    assert int(objects) < 20
