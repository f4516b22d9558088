"""A real napari window, its dock, and a hand on the mouse: for a display, a virtual one will do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QEvent, QEventLoop, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets.workflow import BackSplitWidget

LEFT = Qt.MouseButton.LeftButton
Index = tuple[float, float, float]


class Screen:
    """A viewer with our dock, worked by mouse and keys; indices are canonical (z, y, x)."""

    def __init__(self, desk: Desk | None = None) -> None:
        self.viewer = napari.Viewer(show=False)
        self.viewer.window.show()
        self.viewer.window._qt_window.resize(1280, 800)
        self.dock = BackSplitWidget(self.viewer, desk)
        self.viewer.window.add_dock_widget(self.dock, name="BackSplit", area="right")

    @property
    def desk(self) -> Desk:
        return self.dock.desk

    @property
    def work(self) -> Annotation:
        assert self.desk.annotation is not None
        return self.desk.annotation

    # ------------------------------------------------------------------ waiting

    def until(self, condition: Callable[[], object], timeout_s: float = 60, what: str = "") -> None:
        """Let the window live until something is so; errors of the condition are raised here."""
        if condition():
            return
        loop, errors = QEventLoop(), []
        end = time.monotonic() + timeout_s

        def look() -> None:
            try:
                if condition():
                    loop.quit()
                elif time.monotonic() > end:
                    raise TimeoutError(f"{what}: {self.dock.said.text()}")
            except BaseException as error:
                errors.append(error)
                loop.quit()

        timer = QTimer(interval=10)
        timer.timeout.connect(look)
        timer.start()
        loop.exec()
        timer.stop()
        if errors:
            raise errors[0]

    def rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, seconds + 60)

    def opened(self, case: str = "") -> None:
        """Wait until a case is open and the engine is ready for it."""
        desk = self.desk
        self.until(lambda: desk.annotation and case in ("", desk.annotation.case), what="case")
        self.until(lambda: desk.driver and desk.driver.light == "ready", what="engine")
        self.rest(0.1)

    def done(self) -> None:
        """Wait until every prompt is answered and every stroke and mask is kept."""
        self.until(lambda: not (self.desk.driver and self.desk.driver.orders), what="prompts")
        for lane in (self.desk.scribe, self.desk.files):
            finished: list[bool] = []
            lane.do(lambda: None, lambda _, f=finished: f.append(True))
            self.until(lambda f=finished: f, what="lanes")

    # ------------------------------------------------------------------ mouse and keys

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def look_at(self, slice_: float) -> None:
        """Show the axial slice of that canonical number."""
        self.viewer.dims.set_point(0, self._world((slice_, 0, 0))[0])
        QApplication.processEvents()

    def pixel(self, index: Index) -> QPoint:
        """Return where on the canvas a voxel is shown."""
        camera = self.viewer.scene.camera
        displayed = list(self.viewer.dims.displayed)
        away = (self._world(index)[displayed] - np.array(camera.center)[-2:]) * camera.zoom
        down, right = np.rint(away).astype(int).tolist()
        return QPoint(self.canvas.width() // 2 + right, self.canvas.height() // 2 + down)

    def click(self, index: Index, *, control: bool = False) -> None:
        self.drag([index], control=control)

    def drag(self, indices: Sequence[Index], *, control: bool = False) -> None:
        """Press the mouse on the first voxel, move it over the others, let it go."""
        held = Qt.KeyboardModifier.ControlModifier if control else Qt.KeyboardModifier.NoModifier
        pixels = [self.pixel(index) for index in indices]
        QTest.mouseMove(self.canvas, pixels[0])
        QApplication.processEvents()
        QTest.mousePress(self.canvas, LEFT, held, pixels[0])
        for pixel in pixels[1:]:
            QApplication.sendEvent(self.canvas, self._moved(pixel, held))
            QApplication.processEvents()
        QTest.mouseRelease(self.canvas, LEFT, held, pixels[-1])
        QApplication.processEvents()

    def press(self, key: Any, held: Any = Qt.KeyboardModifier.NoModifier) -> None:
        self.canvas.setFocus()
        QTest.keyClick(self.canvas, key, held)
        QApplication.processEvents()

    def close(self) -> None:
        self.dock.close_all()
        self.viewer.close()

    def _moved(self, pixel: QPoint, held: Any) -> QMouseEvent:
        where = QPointF(pixel), QPointF(self.canvas.mapToGlobal(pixel))
        return QMouseEvent(QEvent.Type.MouseMove, *where, Qt.MouseButton.NoButton, LEFT, held)

    def _world(self, index: Index) -> Any:
        place = self.dock.layers.place
        assert place is not None
        return place.to_world(index)
