"""kill -9 of napari in the middle of the work: nothing is lost but what was in flight."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.annotation import Annotation
from tests.backend.structures.drawing import make_project
from tests.widgets import kill_support
from tests.widgets.kill_support import CASES, STEPS, STRUCTURES, State, expected, state_of

ROOT = Path(__file__).parents[2]
SHAPE = (12, 14, 16)
ROUNDS = [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 20))]


def killed(folder: Path, seed: int, after: int, wait_s: float) -> tuple[int, State]:
    """Start a window at work, kill it some time after a step; return its last step and masks."""
    command = [sys.executable, "-m", kill_support.__name__, str(folder), str(seed)]
    environment = {
        **os.environ,
        "QT_QPA_PLATFORM": "offscreen",
        "BACKSPLIT_CONFIG_DIR": str(folder.parent / "settings"),
    }
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        step, state = -1, {}
        while step < after:
            line = child.stdout.readline()
            assert line, child.stderr.read()[-2000:]
            told = json.loads(line)
            step, state = told["step"], {**state, **told["state"]}
        time.sleep(wait_s)
        child.send_signal(signal.SIGKILL)
        for line in child.stdout:  # what it acknowledged before it was dead
            if line.endswith(b"\n"):
                told = json.loads(line)
                step, state = told["step"], {**state, **told["state"]}
    finally:
        child.kill()
        child.wait()
    return step, state


@pytest.mark.parametrize("round_", ROUNDS)
def test_after_a_kill_everything_but_the_click_in_flight_is_back(
    round_: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng([round_, 2026])
    with make_project(tmp_path, cases=2, shape=SHAPE) as project:
        folder = project.folder
    states = expected(Path(shutil.copytree(folder, tmp_path / "expected")), round_)
    after = int(rng.integers(3, STEPS))
    step, told = killed(folder, round_, after, float(rng.uniform(0, 0.05)))
    assert told.items() <= states[step].items(), "the window does what the library does"
    with Project.open(folder) as project:
        assert not project.read_only, "the lock is free"
        works = [Annotation(project, case) for case in CASES]
        found = {key: mask for work in works for key, mask in state_of(work).items()}
        assert found in states[step : step + 2]
        for work in works:
            for structure in STRUCTURES:
                check_undo(work, structure)
    assert {"", *found.values()} != {""}, "there was something to lose"


def check_undo(work: Annotation, structure: str) -> None:
    """Undo goes back to nothing, and redo to where it was."""
    before, steps = work.mask(structure).copy(), len(work.steps(structure))
    undone = 0
    while work.undo(structure):
        undone += 1
    assert undone == steps
    assert work.voxels(structure) == np.count_nonzero(work.mask(structure)) == 0
    for _ in range(undone):
        assert work.redo(structure)
    assert np.array_equal(work.mask(structure), before)
