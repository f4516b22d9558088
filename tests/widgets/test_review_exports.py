"""What the review writes out, and the dialogs that say so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qtpy.QtWidgets import QProgressDialog

from napari_backsplit.widgets import _exports
from napari_backsplit.widgets.review import ReviewPanel
from tests.widgets.conftest import Window
from tests.widgets.test_review import begin


@pytest.fixture
def review(window: Window) -> ReviewPanel:
    begin(window)
    return window.dock.review


def test_each_export_has_its_own_dialog(window: Window, review: ReviewPanel) -> None:
    first, second = threading.Event(), threading.Event()
    review.exports._do("First", lambda project, progress: first.wait(10), print)
    review.exports._do("Second", lambda project, progress: second.wait(10), print)
    first.set()
    window.until(lambda: titles(review) == ["Second"])
    second.set()
    window.until(lambda: titles(review) == [])


def test_an_export_stops_with_the_window(window: Window, review: ReviewPanel) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(project: Any, progress: Callable[[int, int], None]) -> None:
        try:
            for done in range(1000):
                progress(done, 1000)
                begun.set()
                ended.wait(0.01)
        finally:
            ended.set()

    review.exports._do("Writing", work, print)
    window.until(begun.is_set)
    window.dock.close_all()
    assert ended.wait(2)


def test_a_report_into_a_full_folder_is_refused_before_the_audit(
    window: Window, review: ReviewPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited: list[Any] = []
    monkeypatch.setattr(_exports, "examine", lambda *given, **more: audited.append(given))
    review.exports.write_report(tmp_path)
    window.until(lambda: "is not empty" in window.dock.said.text())
    assert not audited


def titles(review: ReviewPanel) -> list[str]:
    return [dialog.windowTitle() for dialog in review.findChildren(QProgressDialog)]
