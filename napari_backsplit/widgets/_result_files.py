"""What leaves a comparison: the report, its PDF, and a prediction as DICOM SEG."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QProcess, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog

from napari_backsplit.widgets._compare_asking import CompareWays
from napari_backsplit.widgets._comparing import Comparing
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._result import ResultBox
from napari_backsplit.widgets._threads import Lane

SEG_FILES = "DICOM SEG (*.dcm)"


class ResultFiles(QObject):
    """Opens and writes what the buttons of a result ask for; nothing is written over.

    Parameters
    ----------
    ask_for_file : callable
        Takes a proposed name and returns the file that a person chose, "" for none.
    """

    def __init__(
        self,
        desk: Desk,
        comparing: Comparing,
        box: ResultBox,
        ways: CompareWays,
        ask_for_file: Callable[[str], str] | None = None,
    ) -> None:
        super().__init__(box)
        self._desk, self._comparing, self._box, self._ways = desk, comparing, box, ways
        self._ask_for_file = ask_for_file or partial(_ask_for_file, box)
        self._lane = Lane(desk.hop, desk.failed.emit, "result files")
        self._overlay: Any = None
        box.report_wanted.connect(lambda: self._open("report.html"))
        box.folder_wanted.connect(lambda: self._open(""))
        box.pdf_wanted.connect(self._print)
        box.seg_wanted.connect(self._write_seg)

    def close(self) -> None:
        """Take no more work."""
        self._lane.close(drop=True)

    def show_case(self, overlay: Any) -> None:
        """Offer DICOM SEG where the case that is on the image came as DICOM; None for no case."""
        self._overlay, project = overlay, self._desk.project
        self._box.offer_seg(())
        if overlay is not None and project is not None:
            work = partial(self._ways.came_as_dicom, project, overlay.case)
            self._lane.do(work, partial(self._offer_seg, overlay))

    def _offer_seg(self, overlay: Any, came_as_dicom: bool) -> None:
        if overlay is self._overlay and came_as_dicom:
            self._box.offer_seg([arm for arm in overlay.arms if arm in overlay.predictions])

    def _report(self) -> Path | None:
        return self._comparing.shown.report if self._comparing.shown else None

    def _open(self, name: str) -> None:
        report = self._report()
        if report is not None and not open_path(report if name else report.parent):
            self._desk.told.emit(f"Nothing on this machine opens it: it is {report}.")

    # ------------------------------------------------------------------ PDF

    def _print(self) -> None:
        report = self._report()
        if report is not None:
            self._box.pdf.setEnabled(False)
            self._desk.told.emit("Printing the report…")
            work = partial(self._ways.write_pdf, report)
            self._lane.do(work, self._has_printed, self._not_printed)

    def _has_printed(self, file: Path) -> None:
        self._box.pdf.setEnabled(True)
        project = self._desk.project
        inside = project is not None and file.is_relative_to(project.folder)
        place = file.parent.relative_to(project.folder).as_posix() if project and inside else ""
        said = f"Printed: {file.name}, in {place or 'the folder of the report'}."
        opens = open_path(file)
        self._desk.told.emit(said if opens else f"{said} Nothing here opens it: press Folder.")

    def _not_printed(self, error: BaseException) -> None:
        self._box.pdf.setEnabled(True)
        self._desk.failed.emit(error)

    # ------------------------------------------------------------------ DICOM SEG

    def _write_seg(self, arm: str) -> None:
        """Ask for a new file and write the prediction of an arm to it, in a thread."""
        overlay, project = self._overlay, self._desk.project
        if overlay is None or project is None or arm not in overlay.predictions:
            return
        chosen = self._ask_for_file(f"{overlay.case}.dcm")
        if not chosen:
            return
        file = Path(chosen if chosen.lower().endswith(".dcm") else f"{chosen}.dcm")
        self._box.seg.setEnabled(False)
        self._desk.told.emit(f"Writing {file.name}…")
        folder = overlay.predictions[arm].parent
        self._lane.do(
            lambda: self._ways.write_seg(project, overlay.case, folder, file),
            self._has_written,
            self._not_written,
        )

    def _has_written(self, file: Path) -> None:
        self._box.seg.setEnabled(True)
        self._desk.told.emit(
            f"Written: {file.name}. It names the patient, as the series does; for research use."
        )

    def _not_written(self, error: BaseException) -> None:
        self._box.seg.setEnabled(True)
        self._desk.failed.emit(error)


def _ask_for_file(parent: Any, name: str) -> str:
    # Qt's question whether to write over a file is left out: that is refused in any case.
    options = QFileDialog.Option.DontConfirmOverwrite
    chosen, _ = QFileDialog.getSaveFileName(
        parent, "Write a DICOM SEG", name, SEG_FILES, options=options
    )
    return str(chosen)


def open_path(path: Path) -> bool:
    """Show a file or a folder with what the desktop opens it with; False where nothing does."""
    opener = shutil.which("xdg-open") if sys.platform == "linux" else None
    if opener is None:
        return bool(QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))))
    process = QProcess()  # as Qt would call it, but for what it writes on the terminal
    process.setProgram(opener)
    process.setArguments([str(path)])
    process.setStandardOutputFile(QProcess.nullDevice())
    process.setStandardErrorFile(QProcess.nullDevice())
    started = process.startDetached()
    return bool(started[0] if isinstance(started, tuple) else started)
