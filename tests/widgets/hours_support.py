"""Hours of clicking, minutes in fact, by mouse in a real window.

`python -m tests.widgets.hours_support FOLDER MINUTES ENGINE` works on all cases of a project in
turn and prints the memory held after each of them, as lines of JSON.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from qtpy.QtCore import Qt

from tests.widgets.screen_support import Index, Screen

MODEL = Path(__file__).parents[1] / "models" / "nninteractive-tiny"
STRUCTURES = ("kidney", "liver", "spleen")


def around(middle: Index, radius: float, count: int = 8) -> list[Index]:
    """Return points of a circle in the axial slice."""
    z, y, x = middle
    turns = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [(z, y + radius * np.sin(t), x + radius * np.cos(t)) for t in turns]


def work_on(screen: Screen, rng: np.random.Generator) -> None:
    """Do one of everything to each structure of the open case."""
    shape = screen.work.grid.shape
    for structure in STRUCTURES:
        screen.desk.select(structure)
        if screen.work.locked(structure):
            screen.desk.set_locked(structure, False)
        at = tuple(rng.uniform(0.3, 0.7, 3) * shape)
        middle: Index = (round(at[0]), round(at[1]), round(at[2]))
        screen.look_at(middle[0])
        for tool in ("point", "box", "scribble", "lasso", "paint", "erase"):
            screen.dock.tools.choose(tool)
            screen.drag([middle] if tool == "point" else around(middle, 8, 5))
            screen.done()
        screen.dock.tools.choose("point")
        screen.click(around(middle, 5)[3], control=True)
        screen.done()
        held = Qt.KeyboardModifier.ControlModifier
        for _ in range(4):
            screen.press(Qt.Key.Key_Z, held)
            screen.done()
        for _ in range(2):
            screen.press(Qt.Key.Key_Z, held | Qt.KeyboardModifier.ShiftModifier)
            screen.done()
        screen.press(Qt.Key.Key_A)
        screen.done()


def memory_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


def work(screen: Screen, minutes: float) -> Iterator[dict[str, float]]:
    """Go from case to case, and close and open the project after each round."""
    me, rng, begun = psutil.Process(), np.random.default_rng(0), time.monotonic()
    assert screen.desk.project is not None
    folder, cases = screen.desk.project.folder, list(screen.desk.standings)
    for number, case in enumerate(itertools.cycle(cases), start=1):
        screen.desk.open_case(case)
        screen.opened(case)
        work_on(screen, rng)
        gc.collect()
        servers = [memory_mb(child) for child in me.children(recursive=True)]
        elapsed = (time.monotonic() - begun) / 60
        yield {"minutes": elapsed, "mb": memory_mb(me), "server_mb": sum(servers), "case": number}
        if elapsed > minutes:
            return
        if number % len(cases) == 0:
            screen.desk.close_project()
            screen.rest(1)
            screen.dock.open_project(folder)
            screen.opened()


def review(folder: Path, pages: int) -> None:
    """Page through the review again and again: a stroke, its undo, a verdict; tell the memory."""
    me, screen = psutil.Process(), Screen()
    screen.until(lambda: screen.desk.driver is not None, what="engine")
    screen.dock.steps.button(1).click()
    screen.dock.open_project(folder)
    screen.opened()
    reviewing = screen.dock.review.reviewing
    cases = list(screen.desk.standings)
    for number in range(1, pages + 1):
        screen.desk.open_case(cases[number % len(cases)])
        screen.opened(cases[number % len(cases)])
        screen.until(lambda: reviewing.searched, what="findings")
        screen.desk.select("kidney")
        if screen.work.locked("kidney"):
            screen.desk.set_locked("kidney", False)
            screen.done()
        screen.look_at(screen.work.grid.shape[0] // 2)
        screen.press(Qt.Key.Key_D)
        shape = screen.work.grid.shape
        screen.drag(around((shape[0] // 2, shape[1] / 2, shape[2] / 2), 12, 5))
        screen.done()
        screen.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
        screen.done()
        reviewing.judge("accepted", [], "page")
        screen.done()
        gc.collect()
        sys.stdout.write(json.dumps({"page": number, "mb": memory_mb(me)}) + "\n")
        sys.stdout.flush()
    screen.close()


def main(folder: Path, minutes: float, engine: str) -> None:
    from napari_backsplit.backend.structures import engines
    from napari_backsplit.backend.structures.settings import EngineSettings, write_settings

    if engine == "cubes":
        from tests.widgets.conftest import GatedCubes

        class ForgetfulCubes(GatedCubes):
            def segment(self, *asked: Any) -> Any:
                self.requests.clear()
                return super().segment(*asked)

        GatedCubes.gate.set()
        engines.ENGINES = {"cubes": "tests:Cubes"}
        engines._class = lambda name: ForgetfulCubes
    write_settings(EngineSettings(model_folder=str(MODEL), device="cpu", threads=1))
    screen = Screen()
    screen.until(lambda: screen.desk.driver is not None, what="engine")
    screen.dock.open_project(folder)
    screen.opened()
    for sample in work(screen, minutes):
        sys.stdout.write(json.dumps(sample) + "\n")
        sys.stdout.flush()
    screen.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
