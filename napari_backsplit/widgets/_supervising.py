"""Sees to it that what is queued goes on while its project is open to write."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtCore import QObject, QTimer

from napari_backsplit.widgets import _asking
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._threads import Lane

LOOK_EVERY_MS = 30_000
"""A supervisor may be killed while the window lives."""


class Supervising(QObject):  # type: ignore[misc]
    """Asks for a supervisor when a project is opened to write, and twice a minute from then on.

    Parameters
    ----------
    desk : Desk
    """

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._desk = desk
        self._folder: Path | None = None
        self._looking = False
        self._lane = Lane(desk.hop, desk.failed.emit, "supervising")
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self.look)
        desk.project_changed.connect(self._project_changed)
        self._project_changed()

    def look(self) -> None:
        """Let what is queued go on, away from the window's thread; once at a time."""
        if self._folder is not None and not self._looking:
            self._looking = True
            self._lane.do(partial(_asking.supervise, self._folder), self._done, self._missed)

    def close(self) -> None:
        """Look no more; the jobs go on."""
        self._timer.stop()
        self._folder = None
        self._lane.close(drop=True)

    def _project_changed(self) -> None:
        project = self._desk.project
        folder = project.folder if project and not project.read_only else None
        if folder == self._folder:
            return
        self._folder = folder
        if folder is None:
            self._timer.stop()
        else:
            self._looking = False
            self._timer.start()
            self.look()

    def _done(self, _: None = None) -> None:
        self._looking = False

    def _missed(self, error: BaseException) -> None:
        """Tell it, and ask no more until the project is opened again: it would be told for ever."""
        self._looking = False
        self._timer.stop()
        self._desk.failed.emit(error)
