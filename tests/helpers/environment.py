"""Takes from the environment what would change a test's outcome. conftest.py imports it before anything reads those.

What is left out is inherited by the processes that tests start, too. Python's garbage collector rests until the tests
are collected: it would take half of that time, and find nothing.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
import shutil
import signal
import tempfile

gc.disable()
# A shell starts what runs in its background with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

_CACHE = tempfile.mkdtemp(prefix="caa-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
_TAKEN = re.compile(
    r"(CAA|SLURM|OMP|MKL|OPENBLAS|GITHUB|TORCHELASTIC|TYPER|JUPYTER)_.*|_(CAA|TYPER)_.*"
    r"|(GROUP_|LOCAL_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|ENVIRONMENT"
    r"|CI|TTY_COMPATIBLE|TTY_INTERACTIVE|(FORCE_|NO_|PY_)?COLORS?|COLUMNS|LINES|TERMINAL_WIDTH|UNICODE_VERSION|COLORTERM"
    r"|PYTHON(IOENCODING|UTF8|COERCECLOCALE|WARNINGS|OPTIMIZE)|LANG|LC_.*|MPLBACKEND"
)

for name in list(os.environ):
    if _TAKEN.fullmatch(name) and name != "CAA_DATA":
        del os.environ[name]

os.environ |= {
    "TERM": "xterm",
    "LC_ALL": "C.UTF-8",
    # What is compared exactly is computed with one thread.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # What a test measures of this machine is no guide for anyone's later runs, but it is for the other tests.
    "CAA_CACHE_DIR": _CACHE,
}
