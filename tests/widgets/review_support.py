"""A review by mouse and keys in a real window; the program prints what came of each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.widgets.session_support import tell

SHAPE = (20, 64, 64)
KIDNEY = (slice(5, 15), slice(20, 40), slice(10, 30))
LIVER = (slice(5, 15), slice(35, 55), slice(10, 30))
LESION = (slice(8, 12), slice(25, 30), slice(15, 20))


def make(folder: Path) -> Path:
    """Make a project of three cases whose kidney and liver overlap."""
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.volume import Volume, restore
    from tests.backend.structures.drawing import make_project

    with make_project(folder, cases=3, shape=SHAPE) as project:
        assert isinstance(project, Project)
        for case in project.case_ids():
            geometry = project.geometry(case)
            for name, where in (("lesion", LESION), ("kidney", KIDNEY), ("liver", LIVER)):
                mask = np.zeros(geometry.canonical().shape, np.uint8)
                mask[where] = 1
                volume = Volume(restore(mask, geometry), geometry)
                project.set_mask(case, name, volume, {"engine": "test"})
        return project.folder


def drag_row(screen: Any, legend: Any, row: int, above: int) -> None:
    """Drag a row of the legend above another one, with the mouse."""
    from qtpy.QtCore import QPoint, Qt, QTimer
    from qtpy.QtTest import QTest

    window, viewport = legend.window().windowHandle(), legend.viewport()
    start = legend.visualItemRect(legend.topLevelItem(row)).center()
    target = legend.visualItemRect(legend.topLevelItem(above))
    goal = QPoint(target.center().x(), target.top() + 1)

    def where(point: QPoint) -> QPoint:
        return viewport.mapTo(legend.window(), point)

    def drop() -> None:
        QTest.mouseMove(window, where(goal + QPoint(0, 3)))
        QTest.qWait(50)
        QTest.mouseMove(window, where(goal))
        QTest.qWait(50)
        QTest.mouseRelease(window, Qt.MouseButton.LeftButton, pos=where(goal))

    QTimer.singleShot(500, drop)
    QTest.mousePress(viewport, Qt.MouseButton.LeftButton, pos=start)
    for step in (-12, -22):
        QTest.qWait(20)
        QTest.mouseMove(viewport, start + QPoint(0, step))
    screen.rest(1.5)


def review() -> None:
    """Look, paint, drag a priority, jump, and judge."""
    import os

    from qtpy.QtCore import Qt

    from tests.widgets.screen_support import Screen

    folder = make(Path(os.environ["HOME"]))
    screen = Screen()
    screen.dock.open_project(folder)
    screen.opened("case_001")
    screen.dock.steps.button(1).click()
    panel = screen.dock.review
    state = panel.reviewing
    screen.until(lambda: state.searched and state.states, what="review")

    def show(step: str, **facts: Any) -> None:
        screen.done()
        screen.rest(0.3)
        ids = state.fusion.scheme.ids
        counts = {name: int((state.fusion.label_map == ids[name]).sum()) for name in ids}
        shown = screen.viewer.layers["fused"].data[::-1]
        same = bool(np.array_equal(shown, state.fusion.label_map))
        tell(step=step, case=screen.work.case, counts=counts, shown=same, **facts)

    show("opened", conflicts=state.fusion.conflicts, pan=screen.viewer.scene.camera.mouse_pan)
    panel.legend.setCurrentItem(panel.legend.topLevelItem(2))
    screen.look_at(10)
    screen.press(Qt.Key.Key_D)
    before = {name: screen.work.kept(name).copy() for name in ("kidney", "liver")}
    centre = screen.viewer.scene.camera.center
    screen.drag([(10, 30, 20), (10, 30, 35), (10, 30, 50)])
    screen.done()
    gained = screen.work.kept("liver") & ~before["liver"]
    show(
        "brush",
        gained=int(gained.sum()),
        taken=int((gained & before["kidney"]).sum()),
        kidney=bool((screen.work.kept("kidney") == before["kidney"]).all()),
        moved=tuple(centre) != tuple(screen.viewer.scene.camera.center),
    )
    screen.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    screen.done()
    show("undo", back=bool((screen.work.kept("liver") == before["liver"]).all()))
    drag_row(screen, panel.legend, row=2, above=1)
    show("drag", supports=panel.legend.supports())
    screen.press(Qt.Key.Key_O)
    screen.click((10, 22, 12))
    place = screen.dock.layers.place
    assert place is not None
    for key in (Qt.Key.Key_Q, Qt.Key.Key_Q):
        screen.press(key)
    show("cross-hair", at=place.to_voxel(screen.viewer.dims.point).tolist())
    screen.press(Qt.Key.Key_J)
    at = tuple(place.to_voxel(screen.viewer.dims.point).tolist())
    show("jump", found=panel.findings.list.currentItem().text(), at=at)
    screen.press(Qt.Key.Key_A)
    screen.until(lambda: screen.desk.annotation and screen.work.case == "case_002")
    screen.until(lambda: state.fusion is not None)
    screen.until(lambda: state.states["case_001"].state != "none")
    show("accept", said=state.states["case_001"].state)
    panel.verdict.comment.setText("the liver leaks")
    screen.press(Qt.Key.Key_W)
    screen.until(lambda: screen.desk.annotation and screen.work.case == "case_003")
    screen.until(lambda: state.fusion is not None)
    screen.until(lambda: state.states["case_002"].state != "none")
    show("needs work", said=state.states["case_002"].state)
    screen.close()
