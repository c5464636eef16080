"""Fixtures: real data where it is to be had, and a linear model whose boundary is known exactly."""

from __future__ import annotations

import gc
import gzip
import os
from pathlib import Path

import environment  # noqa: F401, first of all
import pytest
from hypothesis import HealthCheck, settings
from networks import Linear, make_linear

# How long an example takes says more of what else the machine does.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """From now on there is garbage, but not among what was collected."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST/raw, from $CAA_DATA or ../shared/data; the test is skipped where there is none."""
    source = Path(os.environ.get("CAA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    archives = sorted((source / "mnist").glob("*.gz"))
    if len(archives) < 4:
        pytest.skip(f"no MNIST in {source}: set CAA_DATA to a folder that holds mnist/*.gz")
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in archives:
        (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
    return root


@pytest.fixture
def linear() -> Linear:
    return make_linear()
