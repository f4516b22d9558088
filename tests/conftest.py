"""Fixtures that every room's tests may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing on a machine that is shared.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("BACKSPLIT_TEST_DATA")
    if not folder:
        pytest.skip("BACKSPLIT_TEST_DATA names no folder of real data")
    return Path(folder)
