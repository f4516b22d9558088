from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from experiment_support import end_jobs


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An experiment's folder; jobs that a failed test left running are ended."""
    yield tmp_path / "an experiment"
    end_jobs(tmp_path)
