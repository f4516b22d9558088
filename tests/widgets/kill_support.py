"""What a person does at random, in a window of its own process and in the library alone.

`python -m tests.widgets.kill_support FOLDER SEED` does it in a window without a screen, and prints
what every mask is after each step that was acknowledged.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.engines import Answer, Request
from napari_backsplit.backend.structures.journal import fingerprint
from napari_backsplit.backend.structures.prompts import Bounds, Point, bounds_of, slices
from tests.backend.structures.drawing import ABOUT, Cubes

STEPS = 30
CASES = ("case_001", "case_002")
STRUCTURES = ("kidney", "liver")
Action = tuple[str, Any]
State = dict[str, str]
"""Fingerprints: "case/structure" -> its mask."""


class SlowCubes(Cubes):
    """Takes some time, so that a kill finds it at work."""

    def segment(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        time.sleep(0.02)
        return super().segment(request, cancelled)


def plan(seed: int, shape: tuple[int, int, int]) -> list[Action]:
    """Return what is done, one prompt, stroke, undo, redo or change of place after the other."""
    rng = np.random.default_rng(seed)
    kinds = ["prompt"] * 10 + ["stroke"] * 6 + ["undo"] * 5 + ["redo"] * 2
    kinds += ["structure", "case", "save"]
    actions: list[Action] = []
    for kind in rng.choice(kinds, STEPS):
        at = tuple(int(rng.integers(n)) for n in shape)
        choice = int(rng.integers(4))
        what = {
            "prompt": Point(at=at, positive=choice > 0),
            "stroke": (at, choice > 0),
            "structure": STRUCTURES[choice % 2],
            "case": CASES[choice % 2],
        }.get(str(kind))
        actions.append((str(kind), what))
    return actions


def stroke_at(at: tuple[int, int, int], shape: tuple[int, int, int]) -> Bounds:
    """Return the small box that a stroke fills."""
    z, y, x = ((a, min(a + 2, n)) for a, n in zip(at, shape, strict=True))
    return z, y, x


def state_of(work: Annotation) -> State:
    return {f"{work.case}/{name}": fingerprint(work.mask(name).view(bool)) for name in STRUCTURES}


# --- in the library -------------------------------------------------------------------------------


def expected(folder: Path, seed: int) -> list[State]:
    """Return what every mask must be before the first step and after each."""
    with Project.open(folder) as project:
        works = {case: Annotation(project, case) for case in CASES}
        place = [CASES[0], STRUCTURES[0]]
        states = [{k: v for work in works.values() for k, v in state_of(work).items()}]
        for kind, what in plan(seed, works[CASES[0]].grid.shape):
            if kind in ("case", "structure"):
                place[kind == "structure"] = what
            else:
                _apply(works[place[0]], place[1], kind, what)
            states.append({**states[-1], **state_of(works[place[0]])})
    return states


def _apply(work: Annotation, structure: str, kind: str, what: Any) -> None:
    if kind == "prompt":
        work.prompt(structure, what, Cubes(), ABOUT)
    elif kind == "stroke":
        whole = np.zeros(work.grid.shape, bool)
        inside = slices(stroke_at(what[0], work.grid.shape))
        whole[inside] = work.mask(structure)[inside].view(bool) ^ what[1]
        bounds = bounds_of(whole)
        if bounds is not None:
            work.edit(structure, bounds, whole[slices(bounds)])
    elif kind in ("undo", "redo"):
        getattr(work, kind)(structure)


# --- in a window ----------------------------------------------------------------------------------


def main(folder: Path, seed: int) -> None:
    from napari.components import ViewerModel
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    from napari_backsplit.backend.structures.settings import EngineSettings
    from napari_backsplit.widgets._desk import Desk
    from napari_backsplit.widgets.workflow import BackSplitWidget

    application = QApplication.instance() or QApplication([])
    desk = Desk(make=lambda name, settings: SlowCubes())
    dock = BackSplitWidget(ViewerModel(), desk)
    desk.use_engine("cubes", EngineSettings())

    def until(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, dock.said.text()
            QTest.qWait(1)

    def kept() -> None:
        until(lambda: not desk.driver.orders)
        for lane in (desk.scribe, desk.files):
            done: list[bool] = []
            lane.do(lambda: None, lambda _, done=done: done.append(True))
            until(lambda done=done: done)

    def tell(step: int) -> None:
        kept()
        sys.stdout.write(json.dumps({"step": step, "state": state_of(desk.annotation)}) + "\n")
        sys.stdout.flush()

    dock.open_project(folder)
    until(lambda: desk.annotation is not None)
    tell(0)
    shape = desk.annotation.grid.shape
    for step, (kind, what) in enumerate(plan(seed, shape), start=1):
        if kind == "prompt":
            desk.ask(what)
        elif kind == "stroke":
            (z0, z1), y, x = stroke_at(what[0], shape)
            flipped = np.arange(shape[0] - z1, shape[0] - z0)
            index = np.meshgrid(flipped, np.arange(*y), np.arange(*x), indexing="ij")
            layer = dock.layers.labels[desk.structure]
            layer.data_setitem(tuple(i.ravel() for i in index), int(what[1]))
            QTest.qWait(1)
        elif kind in ("undo", "redo"):
            desk.turn(kind)
        elif kind == "structure":
            desk.select(what)
        elif kind == "save":
            desk.save()
        elif desk.annotation.case != what:
            desk.open_case(what)
            until(lambda case=what: desk.annotation and desk.annotation.case == case)
        tell(step)
    dock.close_all()
    application.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
