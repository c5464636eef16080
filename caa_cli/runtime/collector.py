"""What Python's garbage collector leaves alone: torch's modules are some 100,000 objects, none of them garbage.

It would look at them again and again while they are made, and once more when the process ends: 1.0 of the 3.3 s
that a short attack takes.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from caa_cli.runtime.signals import uninterrupted


@contextmanager
def importing() -> Iterator[None]:
    """A context to import torch in: nothing is collected meanwhile, and what was made there never looked at again.

    Ctrl-C and the like wait for its end: torch imports numpy in code of its own that would drop a KeyboardInterrupt,
    and go on with a part of numpy.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        with uninterrupted():
            yield
    finally:
        gc.freeze()
        gc.enable()


def rest_at_exit() -> None:
    """Let the process end without a look at all that it still holds."""
    atexit.register(gc.freeze)
