import sys, time, os, random

sys.path[:0] = ["..", "."]
from pathlib import Path
from checkpoints import *
from checkpoints import _runs
import test_hostile_checkpoints as T
from processes import prepare, run
import tempfile

os.chdir(tempfile.mkdtemp())
prepare()
seed = int(sys.argv[1])
each = int(sys.argv[2])
pick = sys.argv[3:]
for name, content in hostile(seed, each):
    if pick and not any(p in name for p in pick):
        continue
    Path("x").write_bytes(content)
    for c in T.COMMANDS[:1] if each == 1 else [random.choice(T.COMMANDS)]:
        e = run(*c)
        print(
            f"{name:40s} {len(content):10d} B code {e.code} {e.seconds:5.1f} s {e.peak / 2**30:.2f} GiB",
            (e.stderr.splitlines() or [e.stdout[:100]])[0][:200].replace("\n", "|"),
            "   WRONG " + str(T.complaint(e))[-500:] if T.complaint(e) else "",
            flush=True,
        )
