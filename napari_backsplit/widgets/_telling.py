"""Tells of jobs outside of the dock: in napari's list of tasks, and on the desktop at their end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QApplication, QSystemTrayIcon

from napari_backsplit.backend.jobs import State
from napari_backsplit.widgets._chain_rows import ChainRow, ChainRows
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._threads import Lane

LOOK_EVERY_MS = 5000
SHOWN_FOR_MS = 10_000
NOTIFY_SEND_S = 5.0
PROVIDER = "BackSplit"
GOES_ON = "“{}” goes on in the background when this window is closed."
ENDED = {State.SUCCEEDED: "Done", State.FAILED: "Failed"}
"""States whose beginning is told; who cancels knows it."""

_AT_WORK = (State.RUNNING, State.PAUSED)
Notify = Callable[[str, str], object]


class Rows(Protocol):
    """What reads the chains of a project."""

    def read(self) -> Sequence[ChainRow]:
        """Return a row for each chain."""


class Announcer(QObject):  # type: ignore[misc]
    """Follows the chains of the project on a desk, whichever panel is shown.

    Closing napari never ends a job: nothing here cancels one.

    Parameters
    ----------
    desk : Desk
    tasks : TaskList, optional
        By default that of the present viewer's window.
    notify : callable, optional
        Takes a head and a line; by default a notification on the desktop.
    read : callable, optional
        Returns what reads the chains of a project folder.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        tasks: TaskList | None = None,
        notify: Notify | None = None,
        read: Callable[[Path], Rows] = ChainRows,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._desk, self._read = desk, read
        self._tasks = tasks or TaskList(napari_tasks())
        self._lane = Lane(desk.hop, lambda error: None, "announcer")  # The history tells of errors.
        self._notify = notify or partial(notify_desktop, self._lane)
        self._rows: Rows | None = None
        self._folder: Path | None = None
        self._known_over: set[str] | None = None
        self._reading = False
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self.look)
        desk.project_changed.connect(self._project_changed)
        self._project_changed()

    def look(self) -> None:
        """Look at the chains, away from the window's thread; once at a time."""
        rows = self._rows
        if rows is None or self._reading:
            return
        self._reading = True
        self._lane.do(
            rows.read, lambda found: self._has_read(rows, found), lambda _: self._rest(rows)
        )

    def close_all(self) -> None:
        """Look no more; the jobs go on."""
        self._timer.stop()
        self._rows = None
        self._lane.close(drop=True)

    def _project_changed(self) -> None:
        project = self._desk.project
        folder = project.folder if project else None
        if folder == self._folder:
            return
        self._folder = folder
        self._rows = self._read(folder) if folder else None
        self._known_over, self._reading = None, False
        self._tasks.show([])
        if folder is None:
            self._timer.stop()
        else:
            self._timer.start()
            self.look()

    def _rest(self, rows: Rows) -> None:
        if rows is self._rows:
            self._reading = False

    def _has_read(self, rows: Rows, found: Sequence[ChainRow]) -> None:
        if rows is not self._rows:
            return
        self._reading = False
        self._tasks.show(row for row in found if row.state in _AT_WORK)
        over = {row.name for row in found if row.over}
        if self._known_over is not None:
            self._tell([row for row in found if row.name in over - self._known_over])
        self._known_over = over

    def _tell(self, rows: Sequence[ChainRow]) -> None:
        for row in rows:
            if row.state in ENDED and self._desk.settings.notify:
                self._notify(f"{PROVIDER}: {ENDED[row.state].lower()}", row.title)


class TaskList:
    """Chains in napari's list of tasks, which napari shows before its window is closed.

    Parameters
    ----------
    manager : TaskStatusManager, optional
        napari's own; None where there is no window.
    """

    def __init__(self, manager: Any = None) -> None:
        self._manager = manager
        self._known: dict[str, Any] = {}

    def show(self, rows: Iterable[ChainRow]) -> None:
        """Show these chains as busy, and no others."""
        if self._manager is None:
            return
        from napari.utils.task_status import Status

        titles = {row.name: row.title for row in rows}
        for name in self._known.keys() - titles.keys():
            self._manager.update_task_status(self._known.pop(name), Status.COMPLETED)
        for name in titles.keys() - self._known.keys():
            words = GOES_ON.format(titles[name])
            self._known[name] = self._manager.register_task_status(PROVIDER, Status.BUSY, words)


def napari_tasks() -> Any:
    """Return the list of tasks of the present viewer's window; None where there is none.

    napari has no public way to it for a task that is no thread of its own.
    """
    import napari

    window = getattr(napari.current_viewer(), "window", None)
    return getattr(window, "_task_status_manager", None)


def notify_desktop(lane: Lane, head: str, line: str) -> None:
    """Show a notification: by the tray, by notify-send, or in napari where neither is there."""
    if QSystemTrayIcon.isSystemTrayAvailable() and QSystemTrayIcon.supportsMessages():
        _by_tray(head, line)
    elif (command := shutil.which("notify-send")) is not None:
        in_napari = partial(_in_napari, head, line)
        lane.do(
            partial(_by_command, command, head, line),
            lambda shown: None if shown else in_napari(),
            lambda error: in_napari(),
        )
    else:
        _in_napari(head, line)


def _by_tray(head: str, line: str) -> None:
    app = QApplication.instance()
    tray = QSystemTrayIcon(app.windowIcon(), app)
    tray.setToolTip(head)
    tray.show()
    tray.showMessage(head, line, app.windowIcon(), SHOWN_FOR_MS)
    QTimer.singleShot(SHOWN_FOR_MS, tray.deleteLater)


def _by_command(command: str, head: str, line: str) -> bool:
    arguments = [command, f"--app-name={PROVIDER}", "--", head, line]
    done = subprocess.run(arguments, check=False, capture_output=True, timeout=NOTIFY_SEND_S)
    return done.returncode == 0


def _in_napari(head: str, line: str) -> None:
    from napari.utils.notifications import show_info

    show_info(f"{head}: {line}")
