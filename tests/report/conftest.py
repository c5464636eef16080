"""A comparison that tables, pages and pictures show."""

from __future__ import annotations

import pytest
from comparing import by_index, comparison_of

from caa_cli.results.comparison import Comparison


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    """Two attacks on four images; the last image breaks under the second alone."""
    return comparison_of(by_index([[2.0, 2.0], [1.0, 1.5], [3.0, 2.99], [None, 4.0]]), resamples=50)
