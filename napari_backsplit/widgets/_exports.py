"""What the review writes out: the report, the table, label maps, a data set; with a way to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu, QProgressDialog, QWidget

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_text
from napari_backsplit.backend.fusion.audit import examine
from napari_backsplit.backend.fusion.cases import Admit
from napari_backsplit.backend.fusion.raw_dataset import write_dataset, write_label_maps
from napari_backsplit.backend.fusion.review import survey
from napari_backsplit.backend.fusion.review_report import require_new, write_review
from napari_backsplit.backend.fusion.review_table import csv_text, review_rows
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.widgets._advice import AdviceDialog
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._threads import Lane

SHOW_AFTER_MS = 300
Progress = Callable[[int, int], None]
Work = Callable[[ProjectReader, Progress], Any]


class Stopped(Exception):
    """A person stopped what was being written."""


class Exports(QObject):
    """Asks where to, writes in a thread of its own, and says what came of it.

    Parameters
    ----------
    desk : Desk
    admit : callable
        Which masks are shown, and so are written.
    """

    def __init__(self, desk: Desk, admit: Callable[[], Admit], parent: QWidget) -> None:
        super().__init__(parent)
        self._desk, self._admit, self._parent = desk, admit, parent
        self._lane = Lane(desk.hop, desk.failed.emit, "exports")
        self._at_work: dict[QProgressDialog, threading.Event] = {}

    def fill(self, menu: QMenu) -> None:
        """Put what can be written, and the advice, into a menu."""
        menu.addAction("Which supports to train with…", self.advise)
        menu.addSeparator()
        menu.addAction("Report with contact sheets…", self.ask_report)
        menu.addAction("Review table (CSV)…", self.ask_table)
        menu.addAction("Fused label maps (NIfTI)…", self.ask_label_maps)
        menu.addAction("nnU-Net data set…", self.ask_dataset)

    def close(self) -> None:
        """Stop what is being written, and take no more work."""
        for stop in self._at_work.values():
            stop.set()
        self._lane.close(drop=True)

    def advise(self) -> None:
        """Show which supports the cohort, and a baseline, speak for."""
        if self._desk.project is not None:
            self._shown = AdviceDialog(self._desk, self._lane, self._parent)
            self._shown.show()

    # ------------------------------------------------------------------ ask where to

    def ask_report(self) -> None:
        """Ask for a new folder and write the report."""
        if folder := self._new("Report: name a new folder", "review"):
            self.write_report(folder)

    def ask_table(self) -> None:
        """Ask for a new file and write the table."""
        if file := self._new("Review table", "review.csv", "Tables (*.csv)"):
            self.write_table(file)

    def ask_label_maps(self) -> None:
        """Ask for a new folder and write the label maps."""
        if folder := self._new("Label maps: name a new folder", "label-maps"):
            self.write_label_maps(folder)

    def ask_dataset(self) -> None:
        """Ask for a folder and a name and write a data set."""
        folder = QFileDialog.getExistingDirectory(self._parent, "nnU-Net's folder of raw data sets")
        if folder:
            name, given = QInputDialog.getText(
                self._parent, "nnU-Net data set", "Number and name", text="501_Lesions"
            )
            if given:
                self.write_dataset(Path(folder), name.strip())

    def _new(self, title: str, name: str, kinds: str = "") -> Path | None:
        text, _ = QFileDialog.getSaveFileName(self._parent, title, name, kinds)
        return Path(text) if text else None

    # ------------------------------------------------------------------ write

    def write_report(self, folder: Path) -> None:
        """Audit all cases, and write review.html and the contact sheets."""
        admit = self._admit()

        def work(project: ProjectReader, progress: Progress) -> Path:
            require_new(folder)  # before the minutes that the audit takes
            audit = examine(project, progress=lambda done, total: progress(done, 2 * total))
            return write_review(
                project,
                audit,
                folder,
                admit=admit,
                progress=lambda done, total: progress(total + done, 2 * total),
            )

        self._do("Writing the report", work, self._open)

    def write_table(self, file: Path) -> None:
        """Write the verdicts and volumes of all cases as CSV."""

        def work(project: ProjectReader, progress: Progress) -> None:
            if file.exists():
                raise InputError(f"{file.name} exists.", "Choose a new name.")
            states = list(survey(project).values())
            write_text(file, csv_text(review_rows(project, states)))

        self._do("Writing the table", work, lambda _: self._told(f"Wrote {file.name}."))

    def write_label_maps(self, folder: Path) -> None:
        """Write the fused label map of every case."""
        admit = self._admit()

        def work(project: ProjectReader, progress: Progress) -> int:
            return len(write_label_maps(project, folder, admit, progress)["cases"])

        told = partial(self._wrote, folder)
        self._do("Writing label maps", work, lambda count: told(f"{count} label maps"))

    def write_dataset(self, folder: Path, name: str) -> None:
        """Write a raw nnU-Net data set of the accepted masks."""

        def work(project: ProjectReader, progress: Progress) -> Any:
            return write_dataset(project, folder, name, "accepted", progress)

        def told(result: Any) -> None:
            partial_ = f", {len(result['missing'])} partial" if result["missing"] else ""
            self._told(f"Wrote {result['dataset']}: {len(result['train'])} cases{partial_}.")

        self._do("Writing the data set", work, told)

    # ------------------------------------------------------------------ inside

    def _do(self, words: str, work: Work, then: Callable[[Any], object]) -> None:
        """Do some work away from the window; what is edited is written to its files first."""
        project, annotation = self._desk.project, self._desk.annotation
        if project is None:
            return
        stop = threading.Event()
        dialog = QProgressDialog(f"{words}…", "Stop", 0, 0, self._parent)
        dialog.setWindowTitle(words)
        dialog.setMinimumDuration(SHOW_AFTER_MS)
        dialog.setAutoClose(False)
        dialog.canceled.connect(stop.set)
        dialog.setValue(0)
        self._at_work[dialog] = stop
        hop = self._desk.hop.call

        def progress(done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped
            hop(lambda: _show(dialog, done, total))

        def whole() -> Any:
            if stop.is_set():
                raise Stopped
            if annotation is not None and not project.read_only:
                annotation.save_all()
            return work(project, progress)

        self._lane.do(
            whole,
            lambda result: self._ended(dialog, then, result),
            lambda error: self._failed(dialog, error),
        )

    def _ended(self, dialog: QProgressDialog, then: Callable[[Any], object], result: Any) -> None:
        self._close(dialog)
        then(result)

    def _failed(self, dialog: QProgressDialog, error: BaseException) -> None:
        self._close(dialog)
        if isinstance(error, Stopped):
            self._told(f"{dialog.windowTitle()} was stopped.")
        else:
            self._desk.failed.emit(error)

    def _close(self, dialog: QProgressDialog) -> None:
        del self._at_work[dialog]
        dialog.close()
        dialog.deleteLater()

    def _open(self, report: Path) -> None:
        self._told(f"Wrote the report to {report.parent.name}.")
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(report)))

    def _wrote(self, folder: Path, what: str) -> None:
        self._told(f"Wrote {what} to {folder.name}.")

    def _told(self, words: str) -> None:
        self._desk.told.emit(words)


def _show(dialog: QProgressDialog, done: int, total: int) -> None:
    if not dialog.wasCanceled():
        dialog.setMaximum(total)
        dialog.setValue(done)
