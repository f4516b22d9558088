"""The history of a project, from real job folders; no worker is started."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QMenu, QWidget

from napari_backsplit.backend.jobs import State, list_jobs, queued
from napari_backsplit.backend.jobs.removal import DELETED, put_aside, remove_left
from napari_backsplit.backend.jobs.spec import Record, now
from napari_backsplit.widgets import _history
from napari_backsplit.widgets._chain_rows import ChainRow, ChainRows, result_words, when
from napari_backsplit.widgets._history import History
from tests.widgets.history_support import write_chain, write_job, write_past, write_queue

WAITS = (State.PENDING, State.PENDING)
DONE = (State.SUCCEEDED,) * 7


@dataclass
class Shown:
    """The history of a project on a screen."""

    bot: QtBot
    project: Path
    widget: History
    failed: list[BaseException] = field(default_factory=list)

    def rows(self) -> list[ChainRow]:
        items = [self.widget.list.item(n) for n in range(self.widget.list.count())]
        return [item.data(_history.ROW) for item in items if not item.isHidden()]

    def titles(self) -> list[str]:
        return [row.title for row in self.rows()]

    def until(self, condition: Callable[[], object]) -> None:
        self.bot.waitUntil(lambda: bool(condition()), timeout=20_000)

    def read(self) -> None:
        """Look again, and wait until what was seen is shown."""
        done: list[bool] = []
        for lane in (self.widget._deeds, self.widget._reads):
            lane.do(lambda: None, lambda _: done.append(True))
        self.until(lambda: len(done) == 2)
        self.until(lambda: not self.widget._reading)
        self.widget.refresh()
        self.until(lambda: not self.widget._reading)

    def choose(self, title: str) -> ChainRow:
        (row,) = [row for row in self.rows() if row.title == title]
        self.widget.choose(row.name)
        return row

    def click(self, button: QWidget) -> None:
        assert button.isEnabled()
        self.bot.mouseClick(button, Qt.MouseButton.LeftButton)
        self.read()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    return tmp_path


@pytest.fixture
def show(qtbot: QtBot, project: Path) -> Iterator[Callable[[], Shown]]:
    made: list[History] = []

    def open_it() -> Shown:
        widget = History()
        made.append(widget)
        qtbot.addWidget(widget)
        widget.resize(400, 500)
        shown = Shown(qtbot, project, widget)
        widget.failed.connect(shown.failed.append)
        widget.show_project(project)
        widget.show()
        shown.read()
        return shown

    yield open_it
    for widget in made:
        widget.close_all()


def chain(
    project: Path,
    number: int,
    title: str,
    states: tuple[State, ...],
    hours_ago: float = 1.0,
) -> list[str]:
    return write_chain(project, number, title, states, now() - timedelta(hours=hours_ago))


def texts(shown: Shown) -> list[str]:
    return [shown.widget.list.item(n).text() for n in range(shown.widget.list.count())]


def test_chains_are_listed_newest_first_with_state_time_and_result(project, show):
    chain(project, 1, "old one", DONE, 50)
    chain(project, 8, "new one", (State.SUCCEEDED, State.FAILED, State.PENDING), 2)
    write_job(project, 20, "train", State.CANCELLED, title="alone")
    shown = show()
    assert shown.titles() == ["alone", "new one", "old one"]
    alone, new, old = (text.split("\n")[1] for text in texts(shown))
    assert alone.startswith("cancelled")
    assert new.startswith("failed")
    assert "55 min" in new
    assert old.startswith("done")
    assert old.endswith("3 h · 12 cases")


def test_a_project_without_jobs_says_so_and_shows_nothing_else(show):
    shown = show()
    assert shown.widget.empty.isVisible()
    assert not shown.widget.list.isVisible()
    assert not shown.widget.acts.isVisible()


def test_the_search_looks_through_titles_numbers_states_and_parameters(project, show):
    chain(project, 1, "kidney", DONE)
    chain(project, 8, "liver", (State.SUCCEEDED, State.FAILED))
    shown = show()
    for text, found in {
        "KIDNEY": ["kidney"],
        "0009-train": ["liver"],
        "failed": ["liver"],
        "251": ["kidney"],  # its epochs
        "kidney done": ["kidney"],
        "kidney failed": [],
        "": ["liver", "kidney"],
    }.items():
        shown.widget.filter.setText(text)
        assert shown.titles() == found, text
        assert shown.widget.empty.isVisible() == (not found)
    shown.widget.filter.setText("none such")
    assert "none such" in shown.widget.empty.text()
    assert not shown.widget.show_it.isEnabled()


def test_what_is_chosen_stays_chosen_when_others_come(project, show):
    chain(project, 1, "first", DONE)
    shown = show()
    shown.choose("first")
    chain(project, 8, "second", DONE)
    shown.read()
    assert shown.titles() == ["second", "first"]
    assert shown.widget.row.title == "first"


def test_enter_and_the_button_show_a_chain(project, show, qtbot):
    name = chain(project, 1, "first", DONE)[0]
    shown = show()
    row = shown.choose("first")
    with qtbot.waitSignal(shown.widget.chosen) as seen:
        qtbot.mouseClick(shown.widget.show_it, Qt.MouseButton.LeftButton)
    assert seen.args == [name]
    with qtbot.waitSignal(shown.widget.chosen):
        qtbot.keyClick(shown.widget.list, Qt.Key.Key_Return)
    with qtbot.waitSignal(shown.widget.repeat_asked) as asked:
        qtbot.mouseClick(shown.widget.repeat, Qt.MouseButton.LeftButton)
    assert asked.args[0].spec.task == "train"
    assert asked.args[0].id in {job.id for job in row.chain.jobs}


def test_what_waits_changes_places_by_button_and_by_key(project, show, qtbot):
    a = chain(project, 1, "a", WAITS)
    b = chain(project, 3, "b", WAITS)
    c = chain(project, 5, "c", WAITS)
    write_queue(project, [*a, *b, *c])
    shown = show()
    assert {row.title: row.place for row in shown.rows()} == {"a": 1, "b": 2, "c": 3}
    assert "next in the queue" in texts(shown)[2]
    shown.choose("c")
    assert not shown.widget.down.isEnabled()
    shown.click(shown.widget.up)
    assert queued(project) == [*a, *c, *b]
    shown.widget.list.setFocus()
    qtbot.keyClick(shown.widget.list, Qt.Key.Key_Up, Qt.KeyboardModifier.ControlModifier)
    shown.read()
    assert queued(project) == [*c, *a, *b]
    assert not shown.widget.up.isEnabled()
    shown.click(shown.widget.down)
    assert queued(project) == [*a, *c, *b]
    assert not shown.failed


def test_a_queued_chain_is_cancelled_and_goes_on(project, show, monkeypatch):
    ids = chain(project, 1, "a", WAITS)
    write_queue(project, ids)
    monkeypatch.setattr("napari_backsplit.backend.jobs.chain.ensure_supervisor", lambda *a, **k: 0)
    shown = show()
    shown.choose("a")
    assert not shown.widget.resume.isEnabled()
    assert not shown.widget.delete.isEnabled()
    shown.click(shown.widget.cancel)
    assert queued(project) == []
    assert shown.rows()[0].state is State.CANCELLED
    shown.click(shown.widget.resume)
    assert queued(project) == ids
    assert shown.rows()[0].state is State.PENDING


def test_a_deletion_is_taken_back(project, show, qtbot):
    chain(project, 1, "keep", DONE)
    chain(project, 8, "gone", DONE)
    shown = show()
    shown.choose("gone")
    shown.until(lambda: "kB" in shown.widget.delete.text())
    shown.widget.list.setFocus()
    qtbot.keyClick(shown.widget.list, Qt.Key.Key_Delete)
    shown.until(lambda: shown.titles() == ["keep"])
    assert len(list_jobs(project)) == 7
    assert "gone" in shown.widget.removed.text()
    assert "kB" in shown.widget.removed.text()
    shown.click(shown.widget.undo)
    assert shown.titles() == ["gone", "keep"]
    assert len(list_jobs(project)) == 14
    assert not shown.widget.undone.isVisible()


def test_what_was_deleted_is_gone_for_good_after_a_while(project, show, monkeypatch):
    monkeypatch.setattr(_history, "UNDO_MS", 50)
    chain(project, 1, "gone", DONE)
    shown = show()
    shown.choose("gone")
    shown.click(shown.widget.delete)
    shown.until(lambda: not list((project / "jobs").glob(f"{DELETED}*")))
    assert not shown.widget.undone.isVisible()


def test_what_was_deleted_is_gone_for_good_when_napari_closes(project, show):
    chain(project, 1, "gone", DONE)
    shown = show()
    shown.choose("gone")
    shown.click(shown.widget.delete)
    assert list((project / "jobs").glob(f"{DELETED}*"))
    shown.widget.close_all()
    shown.until(lambda: not list((project / "jobs").glob(f"{DELETED}*")))


def test_what_a_dead_window_deleted_is_removed_once_it_is_old(project, monkeypatch):
    folder = write_job(project, 1)
    (job,) = list_jobs(project)
    put_aside([job])
    remove_left(project)
    assert len(list((project / "jobs").glob(f"{DELETED}*"))) == 1, "its Undo may still be pressed"
    monkeypatch.setattr("napari_backsplit.backend.jobs.removal.LEFT_S", -1.0)
    remove_left(project)
    assert not list((project / "jobs").glob(f"{DELETED}*"))
    assert not folder.exists()


def test_what_another_chain_still_needs_is_not_deleted(project, show):
    first = chain(project, 1, "first", (State.SUCCEEDED, State.SUCCEEDED))
    write_job(
        project,
        8,
        "predict",
        State.PENDING,
        title="second",
        params={"model": f"jobs/{first[1]}/model"},
    )
    shown = show()
    shown.choose("first")
    shown.click(shown.widget.delete)
    assert "second" in str(shown.failed[0])
    assert len(shown.rows()) == 2


def test_nothing_is_moved_where_a_worker_holds_a_link(project, show):
    chain(project, 1, "first", (State.SUCCEEDED, State.SUCCEEDED))
    shown = show()
    row = shown.choose("first")
    second = project / "jobs" / row.chain.jobs[1].id
    (second / "heartbeat").touch()
    from napari_backsplit.backend.jobs.processes import mark

    running = Record(state=State.RUNNING, started=now(), worker=mark())
    (second / "status.json").write_text(running.model_dump_json())
    shown.bot.mouseClick(shown.widget.delete, Qt.MouseButton.LeftButton)
    shown.until(lambda: shown.failed)
    assert "RUNNING" in str(shown.failed[0])
    assert len(list_jobs(project)) == 2


def test_the_menu_offers_what_the_buttons_do(project, show, qtbot):
    chain(project, 1, "first", DONE)
    shown = show()
    shown.choose("first")
    shown.widget._show_menu(QPoint(5, 5))
    menu = shown.widget.findChild(QMenu)
    offered = {action.text(): action.isEnabled() for action in menu.actions()}
    menu.close()
    assert offered["Show"]
    assert offered["Repeat with changes…"]
    assert not offered["Cancel"]
    assert any(text.startswith("Delete") and on for text, on in offered.items())


def test_it_looks_only_while_it_is_seen(project, show, monkeypatch):
    monkeypatch.setattr(_history, "LOOK_EVERY_MS", 20)
    shown = show()
    chain(project, 1, "came later", DONE)
    shown.until(lambda: shown.titles() == ["came later"])
    shown.widget.hide()
    shown.read()
    reads: list[int] = []
    read = ChainRows.read
    monkeypatch.setattr(ChainRows, "read", lambda rows: (reads.append(1), read(rows))[1])
    shown.bot.wait(150)
    assert not reads
    shown.widget.show()
    shown.until(lambda: len(reads) > 2)


def test_another_project_takes_the_place_of_what_was_still_read(project, show, tmp_path):
    chain(project, 1, "mine", DONE)
    shown = show()
    other = tmp_path / "other"
    chain(other, 1, "theirs", DONE)
    shown.widget.refresh()
    shown.widget.show_project(other)
    shown.until(lambda: shown.titles() == ["theirs"])
    shown.widget.show_project(None)
    assert shown.titles() == []


def test_a_disk_that_is_away_is_told_of_once(project, show, monkeypatch):
    chain(project, 1, "mine", DONE)
    shown = show()
    tries: list[int] = []

    def read(self: ChainRows) -> list[ChainRow]:
        tries.append(1)
        raise OSError("away")

    with monkeypatch.context() as away:
        away.setattr(ChainRows, "read", read)
        for count in (1, 2, 3):
            shown.widget.refresh()
            shown.until(lambda count=count: len(tries) == count and not shown.widget._reading)
    assert len(shown.failed) == 1
    shown.read()
    assert shown.titles() == ["mine"]


def test_a_chain_that_is_wanted_is_selected_as_soon_as_it_is_listed(project, show):
    chain(project, 1, "mine", DONE)
    shown = show()
    (name, *_) = chain(project, 20, "new", DONE)
    shown.widget.choose(name)
    assert shown.widget.row is None
    shown.read()
    assert shown.widget.row.title == "new"


def test_a_job_that_is_over_is_read_once(project, monkeypatch):
    write_past(project, 3)
    rows = ChainRows(project)
    first = rows.read()
    from napari_backsplit.backend.jobs import Job

    def never(job: Job) -> None:
        raise AssertionError(f"{job.id} was read again")

    with monkeypatch.context() as patch:
        patch.setattr(Job, "status", never)
        assert rows.read() == first
    failed = next(row for row in first if row.state is State.FAILED)
    job = next(job for job in failed.chain.jobs if job.status().state is State.FAILED)
    time.sleep(0.02)
    job.resume(start=False)
    changed = next(row for row in rows.read() if row.name == failed.name)
    assert changed.state is State.PENDING


def test_half_written_and_vanished_jobs_are_left_out(project):
    chain(project, 1, "whole", (State.SUCCEEDED, State.SUCCEEDED))
    torn = write_job(project, 7)
    (torn / "status.json").write_text("{")
    making = project / "jobs" / "0009-train"
    making.mkdir()
    rows = ChainRows(project)
    assert [row.title for row in rows.read()] == ["whole"]
    shutil.rmtree(project / "jobs" / "0001-plan")
    assert [row.chain.jobs[0].id for row in rows.read()] == ["0002-train"]


def test_hundreds_of_chains_are_shown_at_their_place(project, show):
    write_past(project, 300)
    shown = show()
    assert len(shown.rows()) == 300
    assert shown.rows()[0].place == 3
    assert shown.widget.list.sizeHintForRow(0) >= 2 * shown.widget.fontMetrics().height()


@pytest.mark.parametrize(
    ("task", "result", "words"),
    [
        (
            "compare",
            {"verdict": ["A is better.", "B is not."], "cases": 9},
            "A is better. B is not.",
        ),
        ("compare", {"verdict": [], "cases": 9}, "9 cases"),
        ("predict", {"cases": ["case_001"]}, "1 case"),
        ("train", {"model": "jobs/0001-train/model"}, ""),
        ("segment", {}, ""),
    ],
)
def test_a_result_is_told_in_a_few_words(task, result, words):
    assert result_words(task, result) == words


NOW = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("time_", "words"),
    [
        (NOW - timedelta(minutes=20), "00:10"),
        (NOW - timedelta(minutes=40), "yesterday 23:50"),
        (NOW - timedelta(days=3), "26 Feb 00:30"),
        (NOW - timedelta(days=80), "11 Dec 2025 00:30"),
        (NOW.astimezone(UTC), "00:30"),
    ],
)
def test_times_are_told_in_the_zone_of_who_looks(time_, words):
    assert when(time_, NOW) == words


@given(st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)))
def test_any_time_can_be_told(time_):
    assert f"{time_.astimezone(NOW.tzinfo):%H:%M}" in when(time_, NOW)


def test_no_path_of_this_machine_is_searched_or_shown(project, show):
    chain(project, 1, "first", DONE)
    shown = show()
    assert os.fspath(project) not in shown.rows()[0].found_by
    assert os.fspath(project) not in shown.widget.list.item(0).toolTip()
