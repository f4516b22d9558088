"""Windows that go without being closed, and scripts that end: nothing is lost or thrown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from qtpy.QtCore import QObject

from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._leaving import abandon
from napari_backsplit.widgets._threads import Hop

ENDING = """
import atexit, sys
from pathlib import Path
from qtpy.QtWidgets import QApplication
from napari_backsplit.widgets._threads import Hop, Lane
application = QApplication([])
lane = Lane(Hop(), print, "files")
lane.do(int)
atexit.register(lambda: lane.do(lambda: Path(sys.argv[1]).write_text("written")))
"""


def test_what_is_to_be_written_while_python_ends_is_written(tmp_path: Path) -> None:
    file = tmp_path / "mask"
    command = [sys.executable, "-c", ENDING, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert file.read_text() == "written"


def test_what_waits_for_a_window_that_is_gone_keeps_nothing_from_being_closed(
    qapp: QObject,
) -> None:
    desk, done = Desk(), []
    desk.hop.call(lambda: 1 / 0)
    desk.hop.call(lambda: done.append(True))
    abandon(desk)
    assert done
    assert desk.closed


def test_a_desk_that_qt_has_deleted_is_let_go(qapp: QObject) -> None:
    import shiboken6

    desk = Desk()
    desk.close()
    other = Desk()
    shiboken6.delete(other)
    abandon(other)


def test_finishing_calls_in_order(qapp: QObject) -> None:
    hop, done = Hop(), []
    for number in range(3):
        hop.call(lambda number=number: done.append(number))
    hop.finish()
    assert done == [0, 1, 2]
