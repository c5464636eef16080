"""Networks that change their input in place: they vote, and have no gradient at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from caa_cli.errors import CaaError


@contextmanager
def differentiating() -> Iterator[None]:
    """A context for a forward pass of which gradients at the input are wanted. Raises CaaError for such a network."""
    try:
        yield
    except RuntimeError as error:
        if "a leaf Variable that requires grad" not in str(error):
            raise
        raise CaaError(
            "the network changes its input in place, so it has no gradient there",
            "begin its forward with a copy: x = x.clone()",
        ) from error
