"""A window that only reads follows what the one that writes does."""

from __future__ import annotations

import os
from pathlib import Path

from qtpy.QtCore import QObject, QTimer, Signal

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.lock import is_held
from napari_backsplit.backend.project.reader import FILE
from napari_backsplit.widgets._desk import Desk

LOOK_EVERY_MS = 1000

Stamp = tuple[tuple[str, int, int], ...]
Stamps = dict[str, Stamp]
"""Case -> name, time and size of its files; "" -> of the project's own file."""


class Following(QObject):
    """Looks once a second which files changed, and shows what is in them now.

    Attributes
    ----------
    freed : Signal
        Nobody writes in the project any more.
    """

    freed = Signal()

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._desk = desk
        self._project: Project | None = None
        self._stamps: Stamps | None = None
        self._looking = self._said = False
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self.look)
        desk.project_changed.connect(self._project_changed)

    def close(self) -> None:
        """Look no more."""
        self._timer.stop()

    def look(self) -> None:
        """Look now, unless a look is on its way."""
        project = self._desk.project
        if project is None or not project.read_only or self._looking:
            return
        self._looking = True
        self._desk.files.do(
            lambda: (stamps_of(project), is_held(project.folder)),
            lambda seen: self._seen(project, *seen),
            self._missed,
        )

    def _project_changed(self) -> None:
        project = self._desk.project
        if project is self._project:
            return
        self._project, self._stamps, self._said = project, None, False
        if project is not None and project.read_only:
            self._timer.start()
        else:
            self._timer.stop()

    def _missed(self, error: BaseException) -> None:
        """Look again later: a folder that is elsewhere for a moment is no news."""
        self._looking = False

    def _seen(self, project: Project, stamps: Stamps, held: bool) -> None:
        self._looking = False
        if project is not self._desk.project:
            return
        before, self._stamps = self._stamps, stamps
        if before is not None and before != stamps:
            names = {n for n in before.keys() | stamps.keys() if before.get(n) != stamps.get(n)}
            self._desk.follow(names)
        if not held and not self._said:
            self._said = True
            self.freed.emit()


def stamps_of(project: Project) -> Stamps:
    """Return when the files of a project were written last."""
    cases = project.folder / "cases"
    found = {case.name: _stamp(case) for case in _folders(cases)}
    return {"": tuple(s for s in _stamp(project.folder) if s[0] == FILE), **found}


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_dir()]


def _stamp(folder: Path) -> Stamp:
    """Return name, time and size of the files of a folder, and of a case's folders of masks."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in ("supports", "targets"):
                found += list(_stamp(Path(entry.path)))
            elif entry.is_file():
                about = entry.stat()
                found.append((entry.name, about.st_mtime_ns, about.st_size))
    return tuple(sorted(found))
